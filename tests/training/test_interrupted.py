"""A run may be killed at any point: the same command goes on, and only what was not finished is done again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import write_recipe

STAGES = ["data", "train", "evaluate", "merge", "export", "verify", "package"]


def command(stage: str, recipe: Path, runs: Path) -> list[str]:
    return [sys.executable, "-m", "bentune", stage, str(recipe), "--runs", str(runs), "--json"]


def bentune(stage: str, recipe: Path, runs: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(command(stage, recipe, runs), capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def kill_when(happened: Callable[[], bool], stage: str, recipe: Path, runs: Path) -> None:
    """Start a command and end it with SIGKILL as soon as something has happened."""
    with subprocess.Popen(
        command(stage, recipe, runs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not happened():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def long_recipe(tmp_path: Path, tiny_model: Path, tiny_csv: Path) -> Path:
    """Steps enough that a kill comes in the middle."""
    train = {"epochs": 20, "learning_rate": 0.003, "checkpoint_steps": 20}
    return write_recipe(tmp_path / "long.yaml", tiny_model, tiny_csv, train=train)


def test_killed_in_training_it_goes_on_from_its_checkpoint(long_recipe: Path, tmp_path: Path) -> None:
    runs, whole = tmp_path / "killed", tmp_path / "whole"
    for place in (runs, whole):
        assert bentune("data", long_recipe, place)[0] == 0

    def checkpoint_written() -> bool:
        return any(runs.glob("long/*/train.partial/checkpoints/checkpoint-40/trainer_state.json"))

    kill_when(checkpoint_written, "train", long_recipe, runs)
    assert list(runs.glob("long/*/train")) == []
    code, resumed = bentune("train", long_recipe, runs)
    assert code == 0
    assert resumed["summary"]["resumed_at_step"] >= 40
    _, uninterrupted = bentune("train", long_recipe, whole)
    assert uninterrupted["summary"]["resumed_at_step"] == 0
    assert resumed["summary"]["steps"] == uninterrupted["summary"]["steps"] == 300
    # The same seed: what was interrupted ends with the weights that it would have had.
    weights = [load_file(Path(done["directory"]) / "model/model.safetensors") for done in (resumed, uninterrupted)]
    for name in weights[0]:
        np.testing.assert_allclose(weights[0][name], weights[1][name], atol=1e-5)


def test_killed_in_export_only_export_and_what_follows_is_done(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run, run)
    for stage in ("export", "verify", "package"):
        shutil.rmtree(run / stage)
    finished = {stage: (run / stage / "stage.json").stat().st_mtime_ns for stage in STAGES[:4]}
    kill_when((run / "export.partial").exists, "run", tiny_recipe, tmp_path / "runs")
    assert not (run / "export").exists()
    code, done = bentune("run", tiny_recipe, tmp_path / "runs")
    assert code == 0
    assert [stage["stage"] for stage in done["stages"] if stage["redone"]] == ["export", "verify", "package"]
    assert {stage: (run / stage / "stage.json").stat().st_mtime_ns for stage in STAGES[:4]} == finished
    assert list(run.glob("*.partial")) == []


def test_a_run_that_another_process_uses_is_refused(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run, run)
    program = (
        "import sys, time; from pathlib import Path; from training.run_dir import RunDir\n"
        "with RunDir.open(Path(sys.argv[1]), sys.argv[2]):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    hold = [sys.executable, "-c", program, str(tmp_path / "runs"), run.parent.name]
    with subprocess.Popen(hold, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        code, said = bentune("data", tiny_recipe, tmp_path / "runs")
        holder.kill()
    assert code == 2
    assert f"{run} is in use by another process (pid {holder.pid})" in said["error"]
    # The lock ends with the process that held it.
    assert bentune("data", tiny_recipe, tmp_path / "runs")[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a size of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_named_and_the_same_command_goes_on(small_disk: Path, tiny_recipe: Path) -> None:
    assert bentune("data", tiny_recipe, small_disk)[0] == 0
    code, said = bentune("run", tiny_recipe, small_disk)
    assert code == 3
    assert f"the disk of {small_disk}" in said["error"]
    assert "is full" in said["error"]
    (run,) = (small_disk / tiny_recipe.stem).iterdir()
    assert (run / "data/stage.json").is_file()
    assert not (run / "train").exists()
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    code, done = bentune("run", tiny_recipe, small_disk)
    assert code == 0
    assert [stage["stage"] for stage in done["stages"] if not stage["redone"]] == ["data"]
