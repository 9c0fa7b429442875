"""A dry run: what is due and what it takes, with nothing but the data left behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import ask
from tiny import Quiet

from bentune.bundle.errors import InputError
from training.dry_run import dry_run as dry
from training.dry_run import rehearsal
from training.dry_run.process import OutOfMemory
from training.pipeline.run_dir import RunDir
from training.pipeline.workers import Place
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe

Look = Callable[..., dry.DryRun]


@pytest.fixture
def look(tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Look:
    """A dry run of the tiny recipe in this process, where it is quick."""
    monkeypatch.setattr(dry, "call_in_subprocess", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(rehearsal, "ENOUGH_SECONDS", 0.0)

    def run(*how: str, whole: bool = True, force: bool = False, runs: Path | None = None) -> dry.DryRun:
        recipe = load_recipe(tiny_recipe, ["train.epochs=1", *how]).recipe
        with RunDir.open(runs or tmp_path / "new", recipe.name) as directory:
            return dry.dry_run(recipe, directory, Quiet(), whole=whole, force=force)

    return run


def test_the_command_measures_in_a_process_of_its_own_and_leaves_only_data(tiny_recipe: Path, tmp_path: Path) -> None:
    found = ask("train", tiny_recipe, "--dry-run", "--json", "--runs", tmp_path)
    assert found.code == 0
    training = found.json["training"]
    assert (training["rows"], training["steps"]) == (240, 150)
    assert 0 < training["seconds"]["low"] <= training["seconds"]["expected"] <= training["seconds"]["high"]
    assert 200 < training["peak_memory_mb"] < found.json["memory_mb"]
    assert [(stage["stage"], stage["state"]) for stage in found.json["stages"]] == [("data", "done"), ("train", "due")]
    (run,) = (tmp_path / "tiny").iterdir()
    assert {path.name for path in run.iterdir()} == {".lock", "data"}


def test_people_are_told_of_every_stage(look: Look, tiny_recipe: Path, copied: Any, tiny_run: Path) -> None:
    runs = copied(tiny_run)
    said = ask("run", tiny_recipe, "--dry-run", "--runs", runs)
    assert said.code == 0
    assert said.out.count("nothing changed") == 8
    found = look("train.epochs=10", runs=runs)
    assert found.training is None
    assert all(stage.state == "done" and stage.last_seconds is not None for stage in found.stages)
    # Another number of epochs: everything after the data is due, and took a while before.
    found = look(runs=runs)
    assert [(stage.stage, stage.state) for stage in found.stages] == [
        ("data", "done"),
        *((name, "due") for name in ("train", "merge", "evaluate", "export", "verify", "plan", "package")),
    ]
    assert all(stage.last_seconds is not None for stage in found.stages)
    assert found.training is not None
    assert found.later_mb is not None
    # merge, export, the plan's one variant and a copy, the bundle's one.
    assert found.later_mb * 1e6 == pytest.approx(5 * sum(file.stat().st_size for file in _models(runs)), rel=0.2)


def _models(runs: Path) -> list[Path]:
    return list(runs.glob("tiny/*/merge/model/model.safetensors"))


def test_force_measures_what_is_done(look: Look, copied: Any, tiny_run: Path) -> None:
    found = look("train.epochs=10", whole=False, force=True, runs=copied(tiny_run))
    assert found.training is not None
    assert [stage.state for stage in found.stages] == ["done", "due"]


def test_what_goes_on_is_said(look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Path | None] = []
    original = dry._rehearse

    def watched(recipe: Recipe, data: Path, work: Path, partial: Path | None) -> Any:
        given.append(partial)
        return original(recipe, data, work, partial)

    monkeypatch.setattr(dry, "_rehearse", watched)
    look()
    (run,) = (tmp_path / "new/tiny").iterdir()
    assert given == [None]
    monkeypatch.setattr(dry, "unfinished", lambda *_: run / "train.partial")
    (run / "train.partial").mkdir()
    assert [stage.state for stage in look().stages][:2] == ["done", "goes on"]
    assert given[1] == run / "train.partial"


def test_what_does_not_fit_is_refused(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="MB are free beside .*: make room"):
        look(whole=False)

    def too_large(*_: Any) -> None:
        raise OutOfMemory("the kernel killed the process")

    monkeypatch.setattr(dry, "call_in_subprocess", too_large)
    with pytest.raises(InputError, match=r"does not fit into memory .* more than 1 gradient accumulation steps"):
        look(whole=False)


def test_what_may_not_fit_is_warned_of(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed, share = dry._rehearsed, [0.0]
    monkeypatch.setattr(dry, "_rehearsed", lambda *given: replace(rehearsed(*given), taken=share[0]))
    assert look(whole=False).warnings == ()
    share[0] = 0.34
    (others,) = look(whole=False).warnings
    assert others.startswith("other programs kept 34% of the cores busy")
    share[0] = 0.0
    monkeypatch.setattr(dry, "memory_limit_bytes", lambda: 1_000_000)
    monkeypatch.setattr(dry.shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000))
    memory, disk = look().warnings
    assert "of the 1 MB of memory" in memory
    assert "the whole run writes up to" in disk


def test_what_an_interrupted_run_holds_is_room_for_it(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed, held = dry._rehearsed, [0]
    monkeypatch.setattr(dry, "_rehearsed", lambda *given: replace(rehearsed(*given), held_bytes=held[0]))
    monkeypatch.setattr(dry.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="MB are free beside .*: make room"):
        look(whole=False)
    held[0] = 500_000_000
    assert look(whole=False).free_mb == pytest.approx(500.001)


def test_several_processes_are_refused(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dry, "place", lambda: Place(rank=0, world=2))
    with pytest.raises(InputError, match="2 processes were started, and it measures one"):
        look()
    assert not list((tmp_path / "new").glob("*/*/data"))


def test_a_broken_dry_run_leaves_nothing(look: Look, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(recipe: Recipe, data: Path, work: Path, partial: Path | None) -> None:
        (work / "half").write_text("x")
        raise InputError("model: not a model")

    monkeypatch.setattr(dry, "_rehearse", fail)
    with pytest.raises(InputError, match="not a model"):
        look()
    (run,) = (tmp_path / "new/tiny").iterdir()
    assert {path.name for path in run.iterdir()} == {".lock", "data"}
