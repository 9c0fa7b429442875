"""Two real processes: the same batches and loss as one, one that writes, and one exit code."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import ask
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from pair import Pair, launched_with
from safetensors.numpy import load_file
from tiny import Quiet, write_recipe

from bentune.bundle.arrays import Logits
from bentune.bundle.errors import InputError
from rollout.server.server import free_port
from training.pipeline import workers
from training.pipeline.follow import call, follow
from training.pipeline.results import DistilledFrom
from training.pipeline.stage import Context, Reporter
from training.pipeline.workers import EXIT, Alone, Place, Rank0Exit, Team, place
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.train import stage as train
from training.train.compress.distillation import ANSWERS
from training.train.fit.arguments import device_batch_size
from training.train.fit.rows import TrainingRows
from training.train.fit.sampler import LengthSampler, SharedBatches
from training.train.stage import Ask, TrainingInputs

K8S = Path(__file__).parents[3] / "k8s"
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


def test_messages_of_rank_0_arrive_in_order_and_its_value_is_broadcast() -> None:
    shelf = Shelf()
    leader, follower = Team(shelf, Place(0, 2)), Team(shelf, Place(1, 2))
    leader.send({"stage": "train"})
    assert leader.broadcast("mine") == "mine"
    with pytest.raises(AssertionError):  # nobody has received it
        leader.send_exit(3)
    assert follower.receive() == {"stage": "train"}
    assert follower.broadcast("other") == "mine"
    with pytest.raises(Rank0Exit) as ended:
        follower.broadcast("other")
    assert ended.value.code == 3
    shelf.wait(["left/1"], None)
    assert Alone().broadcast("mine") == "mine"


Prepare = Callable[[int, Ask], TrainingInputs]


@pytest.fixture
def teams() -> list[Team]:
    """Rank 0 and rank 1, which receives what rank 0 has sent before."""
    shelf = Shelf()
    return [Team(shelf, Place(rank, 2)) for rank in range(2)]


@pytest.fixture
def prepare(
    teams: list[Team], tiny_run: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Prepare:
    """Return a function that prepares the training inputs of a rank.

    Each rank has a directory of its own below `tmp_path`.
    """
    data = tmp_path / "runs/tiny/1/data"
    shutil.copytree(tiny_run / "data", data)
    shutil.copyfile(data / "test.parquet", data / "validation.parquet")
    recipe = load_recipe(tiny_recipe, ["distill={teacher: unseen}"]).recipe

    def run(rank: int, ask: Ask) -> TrainingInputs:
        (work := tmp_path / str(rank)).mkdir()
        with monkeypatch.context() as patch:
            for module in (train, workers):  # the task asks there who leads
                patch.setattr(module, "team", lambda: teams[rank])
            return train.prepare_training(Context(recipe, work, {"data": data}, Quiet()), ask)

    return run


def answer(
    recipe: Recipe,
    rows: TrainingRows,
    labels: list[str],
    work: Path,
    report: Reporter,
) -> tuple[Logits, DistilledFrom]:
    answers = np.random.default_rng(1).normal(size=(len(rows), len(labels))).astype(np.float32)
    np.save(work / ANSWERS, answers)
    return answers, DistilledFrom(source="teacher", sha256="", training_accuracy=0.5)


def refuse(*_: Any) -> tuple[Logits, DistilledFrom]:
    raise InputError("distill.teacher: no such teacher")


def test_the_leader_alone_tokenizes_and_asks_the_teacher(prepare: Prepare, tmp_path: Path) -> None:
    leader, follower = prepare(0, answer), prepare(1, refuse)
    assert len(follower.rows) == 240
    for ours, theirs in ((leader.rows, follower.rows), (leader.validation, follower.validation)):
        assert isinstance(ours, Dataset)
        assert isinstance(theirs, Dataset)
        assert ours.to_dict() == theirs.to_dict()
    assert leader.start.teacher is not None
    assert leader.start.teacher.training_accuracy == 0.5
    assert {path.name for path in (tmp_path / "1").iterdir()} == {"tokenizer", "base.json"}


def test_when_the_leader_fails_before_it_trains_the_others_end_with_its_code(
    prepare: Prepare, teams: list[Team]
) -> None:
    with pytest.raises(InputError):
        prepare(0, refuse)
    teams[0].send({EXIT: 2})
    with pytest.raises(Rank0Exit) as ended:
        prepare(1, answer)
    assert ended.value.code == 2


def test_one_that_fails_alone_says_why(teams: list[Team], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(train, "run", refuse)
    recipe = Recipe.model_validate({"name": "x", "task": "text-classification", "model": "m", "data": {"source": "s"}})
    leader, follower = teams
    call(leader, "train", recipe, {"data": tmp_path})
    leader.broadcast("what the leader, which goes on, says next")
    with pytest.raises(InputError, match="no such teacher"):
        follow(follower)
    call(leader, "train", recipe, {"data": tmp_path})
    leader.send({EXIT: 3})
    assert follow(follower) == 3


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
    assert (device_batch_size(recipe, 1), device_batch_size(recipe, 3)) == (6, 2)
    with pytest.raises(
        InputError,
        match=r"12 is not divisible by 4 processes times 2 gradient accumulation steps; give a multiple of 8",
    ):
        device_batch_size(recipe, 4)


def files_of(runs: Path, stage: str) -> set[str]:
    (directory,) = runs.glob(f"*/*/{stage}")
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def kill_when_written(pair: Pair, runs: Path, checkpoint: str) -> None:
    deadline = time.monotonic() + 180
    while not any(runs.glob(f"*/*/train.partial/checkpoints/{checkpoint}")):
        assert all(rank.runs for rank in pair.ranks), pair.err(0) + pair.err(1)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    pair.kill()


def write_still(directory: Path, tiny_model: Path, tiny_csv: Path, **more: Any) -> Prepared:
    """Return a recipe without dropout, and a directory of runs with its rows.

    One process and several then differ by rounding alone.
    """
    model = directory / "tiny-bert"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    recipe = write_recipe(directory / "still.yaml", model, tiny_csv, **more)
    assert ask("data", recipe, "--runs", directory / "runs").code == 0
    return recipe, directory / "runs"


def test_sharded_killed_and_gone_on_with_they_end_as_one_process_does(
    tmp_path: Path, tiny_model: Path, tiny_csv: Path
) -> None:
    train = {"epochs": 6, "learning_rate": 0.005, "checkpoint_steps": 10}
    # Nothing improves by that much, so that training stops at the fourth evaluation.
    train |= {"early_stopping": {"metric": "log_loss", "patience": 3, "min_delta": 5}}
    recipe, runs = write_still(
        tmp_path,
        tiny_model,
        tiny_csv,
        method={"name": "lora", "dropout": 0.0},
        train=train,
        data={"source": str(tiny_csv), "split": {"validation": 0.1}},
    )
    shutil.copytree(runs, tmp_path / "alone")
    command, environment = (
        ("train", recipe, "--runs", runs, "--json"),
        launched_with("--use_fsdp", "--fsdp_version", "2"),
    )
    pair = Pair(tmp_path / "killed", *command, environment=environment)
    kill_when_written(pair, runs, "checkpoint-20/trainer_state.json")
    assert list(runs.glob("still/*/train")) == []
    answer = ask(*command)
    assert answer.code == 2
    assert "was written with FSDP, and this training was started with whole weights" in answer.err
    pair = Pair(tmp_path / "resumed", *command, environment=environment)
    assert pair.codes() == [0, 0], pair.err(0) + pair.err(1)
    assert pair.out(1) == ""
    whole = ask("train", recipe, "--runs", tmp_path / "alone", "--json").json["summary"]
    summary = pair.summary()
    assert (summary["processes"], whole["processes"]) == (2, 1)
    assert (summary["sharded"], whole["sharded"]) == (True, False)
    assert 20 <= summary["resumed_at_step"] < summary["steps"] == whole["steps"] == 40
    assert summary["stopped_early"]
    assert whole["stopped_early"]
    assert summary["loss"] == pytest.approx(whole["loss"], abs=0.02)
    for rank in range(2):
        held, total = pair.shares(rank)
        assert held == pytest.approx(total / 2, rel=0.1)
    assert files_of(runs, "train") == files_of(tmp_path / "alone", "train")
    both = (runs, tmp_path / "alone")
    assert [ask("merge", recipe, "--runs", where, "--json").code for where in both] == [0, 0]
    ours, theirs = (load_file(next(where.glob("still/*/merge/model/model.safetensors"))) for where in both)
    assert ours.keys() == theirs.keys()
    assert all(np.allclose(ours[name], theirs[name], atol=0.05) for name in ours)


def test_one_that_fails_ends_both_and_says_why_once(tmp_path: Path, tiny_run: Path, tiny_recipe: Path) -> None:
    run = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run / "data", run / "data")
    pair = Pair(tmp_path / "said", "train", tiny_recipe, "--runs", tmp_path / "runs", "--json", fails=1)
    assert pair.codes() == [3, 3]
    assert "MemoryError: cannot allocate 1 GB for a test" in pair.err(1)
    assert "MemoryError" not in pair.err(0)
    assert (
        "another process of this training has ended; its own message has the reason" in json.loads(pair.out(0))["error"]
    )
    assert [path.name for path in run.iterdir() if path.is_dir()] == ["data"]


def test_what_the_leader_ends_with_all_end_with(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "train", tmp_path / "none.yaml", "--json")
    assert pair.codes() == [2, 2]
    assert "no such recipe file" in pair.err(0)
    assert (pair.out(1), "error" in pair.err(1)) == ("", False)


def test_two_machines_started_as_the_manifests_say_train_as_one(
    tmp_path: Path, tiny_model: Path, tiny_csv: Path, tiny_tag: str
) -> None:
    train = {"epochs": 2, "learning_rate": 0.005, "checkpoint_steps": 10}
    recipe, runs = write_still(tmp_path, tiny_model, tiny_csv, train=train, distill={"teacher": tiny_tag})
    shutil.copytree(runs, tmp_path / "alone")
    job = yaml.safe_load((K8S / "training/distributed/indexed.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert told["PET_NNODES"] == str(job["completions"]) == "2"
    torchrun, *arguments = container["command"]
    assert arguments == ["-m", "bentune", "run", "/recipe/recipe.yaml", "--runs", "/runs"]
    here = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    machines = [
        subprocess.Popen(
            [Path(sys.executable).parent / torchrun, "-m", "bentune", "train", recipe, "--runs", runs, "--json"],
            env=os.environ | told | here | {"PET_NODE_RANK": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    said = [machine.communicate(timeout=240) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert said[1][0] == ""
    summary = json.loads(said[0][0])["summary"]
    whole = ask("train", recipe, "--runs", tmp_path / "alone", "--json").json["summary"]
    assert (summary["processes"], whole["processes"]) == (2, 1)
    assert summary["steps"] == whole["steps"] == 30
    assert summary["loss"] == pytest.approx(whole["loss"], abs=0.02)
    assert [path.name for path in runs.glob("still/*")] == [path.name for path in (tmp_path / "alone").glob("still/*")]
    assert files_of(runs, "train") == files_of(tmp_path / "alone", "train")
