"""A run may be killed at any point: the same command goes on, and only what was not finished is done again."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from apart import Apart
from bentoml._internal.bento import BentoStore
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from command import ask
from safetensors.numpy import load_file

STAGES = ["data", "train", "merge", "evaluate", "export", "verify", "plan", "package"]


def kill_when(happened: Callable[[], bool], stage: str, recipe: Path, runs: Path) -> None:
    """Start a command and end it with SIGKILL as soon as something has happened."""
    with Apart(runs.parent / "killed", stage, recipe, "--runs", runs, "--json") as command:
        deadline = time.monotonic() + 120
        while not happened():
            assert command.runs, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        command.kill()


def test_killed_in_training_it_goes_on_from_its_checkpoint(tiny_recipe: Path, tiny_run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert ask("data", tiny_recipe, "--runs", runs).code == 0

    def checkpoint_written() -> bool:
        return any(runs.glob("tiny/*/train.partial/checkpoints/checkpoint-40/trainer_state.json"))

    kill_when(checkpoint_written, "train", tiny_recipe, runs)
    assert list(runs.glob("tiny/*/train")) == []
    with Apart(tmp_path / "resumed", "train", tiny_recipe, "--runs", runs, "--json") as command:
        assert command.code() == 0
        resumed = command.json
    uninterrupted = json.loads((tiny_run / "train/stage.json").read_text())["summary"]
    assert 40 <= resumed["summary"]["resumed_at_step"] < resumed["summary"]["steps"] == uninterrupted["steps"] == 150
    # Another process may have other threads, which add up in another order: it differs by that, and no more.
    assert resumed["summary"]["loss"] == pytest.approx(uninterrupted["loss"], rel=0.01)
    # The same seed: what was interrupted ends with the weights that it would have had.
    weights, expected = (
        load_file(place / "model/model.safetensors") for place in (Path(resumed["directory"]), tiny_run / "train")
    )
    assert weights.keys() == expected.keys()
    for name in weights:
        np.testing.assert_allclose(weights[name], expected[name], atol=2e-3)


def test_killed_in_export_only_export_and_what_follows_is_done(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run, run)
    for stage in ("export", "verify", "plan", "package"):
        shutil.rmtree(run / stage)
    finished = {stage: (run / stage / "stage.json").stat().st_mtime_ns for stage in STAGES[:4]}
    kill_when((run / "export.partial").exists, "run", tiny_recipe, tmp_path / "runs")
    assert not (run / "export").exists()
    done = ask("run", tiny_recipe, "--runs", tmp_path / "runs", "--json")
    assert done.code == 0
    assert [stage["stage"] for stage in done.json["stages"] if stage["redone"]] == STAGES[4:]
    assert {stage: (run / stage / "stage.json").stat().st_mtime_ns for stage in STAGES[:4]} == finished
    assert list(run.glob("*.partial")) == []


def test_a_run_that_another_process_uses_is_refused(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run, run)
    program = (
        "import sys, time; from pathlib import Path; from training.pipeline.run_dir import RunDir\n"
        "with RunDir.open(Path(sys.argv[1]), sys.argv[2]):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    hold = [sys.executable, "-c", program, str(tmp_path / "runs"), run.parent.name]
    with subprocess.Popen(hold, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        refused = ask("data", tiny_recipe, "--runs", tmp_path / "runs", "--json")
        holder.kill()
    assert refused.code == 2
    assert f"{run} is in use by another process (pid {holder.pid})" in refused.json["error"]
    # The lock ends with the process that held it.
    assert ask("data", tiny_recipe, "--runs", tmp_path / "runs", "--json").code == 0


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of its own, of 3 MB, which a preflight would fill before the training does."""
    monkeypatch.setattr("training.preflight.preflight", lambda *_: None)
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk: unshare -rm pytest tests/training/test_interrupted.py")
    yield place
    subprocess.run(["umount", "-l", place], check=True)  # libraries keep files of it mapped


def fill(disk: Path, leave_kb: int) -> Path:
    """Write a file that leaves so much room."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - leave_kb * 1024))
    return filler


@pytest.mark.parametrize(
    ("stage", "leave_kb", "goes_on_from"),
    [
        *[("data", 0, 0), ("data", 8, 0), ("train", 40, 0), ("train", 150, 0), ("train", 500, 20)],
        *[("export", 20, 0), ("export", 100, 0), ("verify", 4, 0)],
    ],
)
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    stage: str, leave_kb: int, goes_on_from: int, small_disk: Path, tiny_recipe: Path
) -> None:
    earlier = STAGES[: STAGES.index(stage)]
    for name in earlier:
        assert ask(name, tiny_recipe, "--runs", small_disk).code == 0
    filler = fill(small_disk, leave_kb)
    answer = ask(stage, tiny_recipe, "--runs", small_disk, "--json")
    assert answer.code == 3
    message = answer.json["error"]
    assert message.startswith(f"the disk of {small_disk}/tiny")
    assert message.endswith("MB free): make room and give the same command again; finished stages are kept")
    runs = list((small_disk / "tiny").iterdir())
    left = {path.name for run in runs for path in run.iterdir()} - {".lock"}
    assert left == {*earlier, *(["train.partial"] if goes_on_from else [])}
    finished = {name: (runs[0] / name / "stage.json").stat().st_mtime_ns for name in earlier}
    filler.unlink()
    done = ask(stage, tiny_recipe, "--runs", small_disk, "--json")
    assert done.code == 0
    assert done.json["summary"].get("resumed_at_step", 0) == goes_on_from
    (run,) = (small_disk / "tiny").iterdir()
    assert {name: (run / name / "stage.json").stat().st_mtime_ns for name in earlier} == finished
    assert {path.name for path in run.iterdir()} == {".lock", stage, *earlier}


@pytest.fixture
def stores(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the home of the BentoML stores, on the small disk.

    The process that builds a Bento finds them through the environment.
    """
    home = small_disk / "bentoml"
    monkeypatch.setenv("BENTOML_HOME", str(home))
    for name in ("models", "bentos"):
        (home / name).mkdir(parents=True)
    with (
        BentoMLContainer.bentoml_home.patch(str(home)),
        BentoMLContainer.model_store.patch(ModelStore(home / "models")),
        BentoMLContainer.bento_store.patch(BentoStore(home / "bentos")),
    ):
        yield home


def test_a_store_on_a_full_disk_is_named(
    stores: Path, small_disk: Path, tiny_run: Path, tiny_recipe: Path, copied: Callable[[Path], Path]
) -> None:
    """The runs have room; the BentoML stores have none."""
    command = ["package", tiny_recipe, "--runs", copied(tiny_run), "--force", "--json"]
    filler = fill(small_disk, 60)
    answer = ask(*command)
    assert answer.code == 3
    assert answer.json["error"].startswith(f"the disk of {small_disk}")
    filler.unlink()
    # The lock that every version is numbered under stays.
    assert [path.name for path in stores.rglob("*") if path.is_file()] == ["tiny.lock"]
    assert ask(*command).code == 0
    assert len(list(stores.glob("bentos/tiny/*/bento.yaml"))) == 1
