"""Versions are given one at a time: to threads of work that overlap, and after a process died while it held one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer

from bentune.bundle.errors import InputError
from bentune.bundle.store import require_store, reserved, stored_at

STORE = """
import sys
from pathlib import Path
from bentune.bundle.store import reserved
from bentoml._internal.configuration.containers import BentoMLContainer
for _ in range(10):
    with reserved("counted", "0" * 64) as (version, at):
        (Path(BentoMLContainer.model_store_dir.get()) / "counted" / version).mkdir()
        print(version, flush=True)
        if sys.argv[1:] == ["die"]:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    import shutil

    folder = Path(BentoMLContainer.model_store_dir.get()) / "counted"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", STORE, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_processes_at_once_get_versions_one_after_the_other(place: Path) -> None:
    processes = [start() for _ in range(2)]
    given = [process.communicate(timeout=120)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert all(versions == sorted(versions) for versions in given)
    assert len({version for versions in given for version in versions}) == 20
    seconds = sorted(at for path in place.iterdir() if (at := stored_at(path.name)) is not None)
    assert len(set(seconds)) == 20


def test_a_process_that_dies_holds_nothing_and_what_it_left_counts(place: Path) -> None:
    with start("die") as process:
        (left,) = process.communicate(timeout=120)[0].split()
    assert process.returncode == -9
    with reserved("counted", "0" * 64) as (version, _):
        assert version > left


def test_a_clock_that_was_set_back(place: Path) -> None:
    ahead = datetime.now().astimezone() + timedelta(days=1)
    (place / f"{ahead:%Y%m%d-%H%M%S}-ffffff").mkdir()
    with reserved("counted", "0" * 64) as (version, at):
        assert version > f"{ahead:%Y%m%d-%H%M%S}-ffffff"
        assert at == stored_at(version)


def test_a_home_that_cannot_be_written_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    asked = "from bentune.bundle.store import require_store; require_store()"
    environment = os.environ | {"BENTOML_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, env=environment, check=False)
    assert f"InputError: BENTOML_HOME: BentoML's stores cannot be written ([Errno 20] {tmp_path}/home" in done.stderr


def test_a_store_that_is_gone(place: Path, tmp_path: Path) -> None:
    require_store()
    BentoMLContainer.bento_store_dir.set(str(tmp_path / "gone"))
    try:
        with pytest.raises(InputError, match="set it to another directory"):
            require_store()
    finally:
        BentoMLContainer.bento_store_dir.reset()
