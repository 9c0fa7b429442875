"""Two real processes: the same batches and loss as one, one that writes, and one exit code."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.server import free_port
from service.errors import InputError
from training.arguments import rows_at_once
from training.processes import Alone, Dismissed, Place, Team, place
from training.recipe import Recipe
from training.sampler import LengthSampler, SharedBatches


class Shelf:
    """A store in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def wait(self, keys: list[str], timeout: Any) -> None:
        assert set(keys) <= self.values.keys()


def test_who_leads_is_what_the_environment_says() -> None:
    assert place({}) == place({"WORLD_SIZE": "2"}) == Place(0, 1, 1)
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node-0"}
    assert place(torchrun) == Place(rank=3, world=4, local=2)
    assert not place(torchrun).leads
    assert place(torchrun | {"RANK": "0"}).leads


def test_the_leaders_word_is_heard_in_order_and_its_value_is_agreed_on() -> None:
    shelf = Shelf()
    leader, follower = Team(shelf, leads=True), Team(shelf, leads=False)
    leader.say({"stage": "train"})
    assert leader.agree("mine") == "mine"
    leader.say({"exit": 3})
    assert follower.hear() == {"stage": "train"}
    assert follower.agree("other") == "mine"
    with pytest.raises(Dismissed) as ended:
        follower.agree("other")
    assert ended.value.code == 3
    assert Alone().agree("mine") == "mine"


@given(st.integers(4, 60), st.integers(1, 5), st.integers(1, 4))
def test_the_shares_of_a_batch_are_the_batch(rows: int, share: int, world: int) -> None:
    lengths, at_once = [number % 7 for number in range(rows)], share * world
    shares = [list(SharedBatches(LengthSampler(at_once, lengths, 1), at_once, rank, world)) for rank in range(world)]
    order = list(LengthSampler(at_once, lengths, 1))
    seen = []
    for number, parts in enumerate(zip(*shares, strict=True)):
        batch = order[number * at_once : (number + 1) * at_once]
        together = [row for part in parts for row in part]
        assert set(together) == set(batch)
        assert len(together) == max(len(batch), world)
        seen += batch
    assert sorted(seen) == list(range(rows))


def test_a_step_must_divide_by_the_processes() -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "task": "text-classification", "model": "m", "data": {"source": "s"}}
        | {"train": {"batch_size": 12, "accumulation": 2}}
    )
    assert (rows_at_once(recipe, 1), rows_at_once(recipe, 3)) == (6, 2)
    with pytest.raises(
        InputError, match=r"12 rows a step do not divide by 4 processes of 2 parts; give a multiple of 8"
    ):
        rows_at_once(recipe, 4)


def both(*arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """The same command as two processes, as torchrun would start them; what became of each."""
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "bentune", *map(str, arguments)],
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=240) for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, said, strict=True)
    ]


def test_two_processes_train_as_one_and_one_of_them_writes(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    (run / "data").parent.mkdir(parents=True)
    shutil.copytree(tiny_run / "data", run / "data")
    leader, follower = both("train", tiny_recipe, "--runs", tmp_path / "runs", "--json")
    assert (leader.returncode, follower.returncode) == (0, 0), leader.stderr + follower.stderr
    assert follower.stdout == ""
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    summary = json.loads(leader.stdout)["summary"]
    alone = json.loads((tiny_run / "train/stage.json").read_text())["summary"]
    assert (summary["processes"], alone["processes"]) == (2, 1)
    assert summary["steps"] == alone["steps"]
    assert summary["loss"] == pytest.approx(alone["loss"], abs=0.02)
    # Before dropout has made a difference the loss of the first steps is almost the same.
    assert summary["curve"][0]["loss"] == pytest.approx(alone["curve"][0]["loss"], abs=0.05)
    names = {path.relative_to(run / "train").as_posix() for path in (run / "train").rglob("*") if path.is_file()}
    assert names == {
        path.relative_to(tiny_run / "train").as_posix() for path in (tiny_run / "train").rglob("*") if path.is_file()
    }


def test_what_the_leader_ends_with_all_end_with(tmp_path: Path) -> None:
    leader, follower = both("train", tmp_path / "none.yaml", "--json")
    assert (leader.returncode, follower.returncode) == (2, 2)
    assert "no such recipe file" in leader.stderr
    assert follower.stdout == ""
