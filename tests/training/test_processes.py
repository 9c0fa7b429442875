"""Two real processes: the same batches and loss as one, one that writes, and one exit code."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ask
from hypothesis import given
from hypothesis import strategies as st
from pair import Pair, launched_with
from safetensors.numpy import load_file
from tiny import write_recipe

from service.errors import InputError
from training.arguments import rows_at_once
from training.processes import Alone, Dismissed, Place, Team, place
from training.recipe import Recipe
from training.sampler import LengthSampler, SharedBatches

Prepared = tuple[Path, Path]


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
    leader, follower = Team(shelf, Place(0, 2)), Team(shelf, Place(1, 2))
    leader.say({"stage": "train"})
    assert leader.agree("mine") == "mine"
    with pytest.raises(AssertionError):  # nobody has heard it
        leader.dismiss(3)
    assert follower.hear() == {"stage": "train"}
    assert follower.agree("other") == "mine"
    with pytest.raises(Dismissed) as ended:
        follower.agree("other")
    assert ended.value.code == 3
    shelf.wait(["left/1"], None)
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


def names_in(runs: Path, stage: str) -> set[str]:
    (directory,) = runs.glob(f"*/*/{stage}")
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def kill_when_written(pair: Pair, runs: Path, checkpoint: str) -> None:
    deadline = time.monotonic() + 180
    while not any(runs.glob(f"*/*/train.partial/checkpoints/{checkpoint}")):
        assert all(process.is_alive() for process in pair.processes), pair.err(0) + pair.err(1)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    pair.kill()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_csv: Path) -> Callable[..., Prepared]:
    """A recipe without dropout, so that one process and several differ by rounding alone, and runs with its rows."""
    model = tmp_path_factory.mktemp("still") / "tiny-bert"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))

    def prepare(**more: Any) -> Prepared:
        directory = tmp_path_factory.mktemp("pair")
        recipe = write_recipe(directory / "still.yaml", model, tiny_csv, **more)
        assert ask("data", recipe, "--runs", directory / "runs").code == 0
        return recipe, directory / "runs"

    return prepare


def test_sharded_by_accelerate_and_killed_they_go_on_and_end_as_one_process(prepared: Callable[..., Prepared]) -> None:
    recipe, runs = prepared(train={"epochs": 4, "learning_rate": 0.005, "checkpoint_steps": 10})
    alone = runs.parent / "alone"
    shutil.copytree(runs, alone)
    options = {"environment": launched_with("--use_fsdp", "--fsdp_version", "2")}
    pair = Pair(runs.parent / "killed", "train", recipe, "--runs", runs, "--json", **options)
    kill_when_written(pair, runs, "checkpoint-20/trainer_state.json")
    assert list(runs.glob("still/*/train")) == []
    pair = Pair(runs.parent / "resumed", "train", recipe, "--runs", runs, "--json", **options)
    assert pair.codes() == [0, 0], pair.err(0) + pair.err(1)
    assert pair.out(1) == ""
    whole = ask("train", recipe, "--runs", alone, "--json").json["summary"]
    summary = pair.summary()
    assert (summary["processes"], whole["processes"]) == (2, 1)
    assert 20 <= summary["resumed_at_step"] < summary["steps"] == whole["steps"] == 60
    assert summary["loss"] == pytest.approx(whole["loss"], abs=0.02)
    for rank in range(2):
        held, total = pair.shares(rank)
        assert held == pytest.approx(total / 2, rel=0.1)
    assert names_in(runs, "train") == names_in(alone, "train")
    for where in (runs, alone):
        assert ask("merge", recipe, "--runs", where, "--json").code == 0
    ours, theirs = (load_file(next(where.glob("still/*/merge/model/model.safetensors"))) for where in (runs, alone))
    assert {name: weight.shape for name, weight in ours.items()} == {name: w.shape for name, w in theirs.items()}
    assert all(np.allclose(ours[name], theirs[name], atol=0.05) for name in ours)
