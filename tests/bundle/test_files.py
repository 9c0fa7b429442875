"""A file is replaced whole or not at all, whatever ends the writing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentune.bundle.files import atomic_write, write_json, write_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Writes half of a new file, and then is gone without a word, as by the kernel's killer.
KILLED = """
import os, sys
from pathlib import Path
from bentune.bundle.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(b"half of the n")
    file.flush()
    os._exit(9)
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    write_text(path, "the old one\n")
    return path


def test_text_is_written_as_it_is(old: Path) -> None:
    write_text(old, "ütf-8,\r\nline ends\n")
    assert old.read_bytes() == "ütf-8,\r\nline ends\n".encode()


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt(), SystemExit(1)])
def test_what_raises_half_way_leaves_the_old_file_and_no_part(old: Path, error: BaseException) -> None:
    def write() -> None:
        with atomic_write(old) as file:
            file.write(b"half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert old.read_text() == "the old one\n"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_what_fails_at_the_end_leaves_the_old_file_and_no_part(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(*(os, "fsync", full) if step == "fsync" else (Path, "replace", full))
    with pytest.raises(OSError, match="no space left"):
        write_text(old, "the new one\n")
    assert old.read_text() == "the old one\n"
    assert list(old.parent.iterdir()) == [old]


def test_a_process_that_is_killed_half_way_leaves_the_old_file_and_the_next_write_tidies_up(old: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, old], check=False).returncode == 9
    assert old.read_text() == "the old one\n"
    write_text(old, "the new one\n")
    assert old.read_text() == "the new one\n"
    assert list(old.parent.iterdir()) == [old]


def test_the_bytes_are_on_the_disk_before_they_have_the_name_and_the_name_after(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(f"fsync {place.name}, {place.stat().st_size if place.is_file() else 'directory'}")
        fsync(descriptor)

    def replaced(path: Path, to: Path) -> Path:
        steps.append(f"rename to {to.name}")
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_text(old, "the new one\n")
    assert steps == ["fsync a.txt.part, 12", "rename to a.txt", f"fsync {old.parent.name}, directory"]


def test_a_file_system_that_syncs_no_directory_is_enough(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError("invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    write_text(old, "the new one\n")
    assert old.read_text() == "the new one\n"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"x": {1, 2}}, "\ud800"])
def test_write_json_leaves_what_was_there_when_it_fails(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"new": [1, 2, value]})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_write_json_round_trip(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_bytes()) == value
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]
