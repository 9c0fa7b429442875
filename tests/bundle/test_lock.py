"""One process at a time, and none that is dead."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bentune.bundle.lock import locked, try_lock

# Holds what it is given, says so, and waits.
HOLDER = """
import sys
from pathlib import Path
from bentune.bundle.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def free(path: Path) -> bool:
    with path.open("rb") as file:
        return try_lock(file.fileno())


@pytest.fixture(params=["directory", "new file", "old file"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if request.param == "directory":
        return tmp_path
    if request.param == "old file":
        (tmp_path / "file").write_text("old")
    return tmp_path / "file"


def test_it_is_held_until_the_block_ends(place: Path) -> None:
    with locked(place):
        if place.is_dir():
            assert list(place.iterdir()) == []
        else:
            assert not free(place)
    if place.is_file():
        assert free(place)
        assert place.read_text() in {"", "old"}


def test_the_kernel_gives_back_what_a_killed_process_held(place: Path) -> None:
    got = threading.Event()

    def wait() -> None:
        with locked(place):
            got.set()

    with holder(place) as process:
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.2)
        process.kill()
        assert got.wait(10)
        waiting.join()
