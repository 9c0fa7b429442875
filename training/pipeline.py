"""The order of the stages, what each depends on, and which of them a run must do again."""

import importlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import InputError
from training.recipe import Recipe
from training.recipe_file import digest
from training.run_dir import RunDir, StageRecord, explain_full_disk
from training.stage import Context, Reporter, Summary


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: the earlier stages that it reads and the parts of the recipe that it depends on.

    A `resumable` stage finds its unfinished work again; the others start over.
    """

    name: str
    reads: tuple[str, ...]
    keys: tuple[str, ...]
    resumable: bool = False

    def load(self) -> Any:
        """The stage's module; imported now, so that a command pays only for what it runs."""
        return importlib.import_module(f"training.{self.name}")


STAGES = (
    Stage("data", (), ("data", "seed")),
    Stage("train", ("data",), ("task", "model", "method", "max_tokens", "seed", "train"), resumable=True),
    Stage("evaluate", ("data", "train"), ("model", "max_tokens", "seed", "evaluate")),
    Stage("merge", ("train",), ("model", "method", "seed")),
    Stage("export", ("merge",), ("task",)),
    Stage(
        "verify",
        ("data", "train", "merge", "export"),
        ("model", "method", "max_tokens", "seed", "verify"),
    ),
    Stage("package", ("data", "train", "evaluate", "export", "verify"), tuple(Recipe.model_fields)),
)
NAMES = tuple(stage.name for stage in STAGES)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one stage: `redone` is false when what was there still holds."""

    stage: str
    directory: Path
    redone: bool
    seconds: float
    summary: Summary


def run_all(recipe: Recipe, run: RunDir, report: Reporter) -> Iterator[Outcome]:
    """Run every stage whose recipe values or inputs changed, in order, and yield each outcome as it comes."""
    for stage in STAGES:
        yield run_stage(stage.name, recipe, run, report)


def run_stage(name: str, recipe: Recipe, run: RunDir, report: Reporter, *, force: bool = False) -> Outcome:
    """Run one stage, unless it is done and nothing that it depends on changed.

    Raises InputError when an earlier stage is not done yet.
    """
    stage = STAGES[NAMES.index(name)]
    inputs = {earlier: run.stage(earlier) for earlier in stage.reads}
    records = {earlier: run.record(earlier) for earlier in stage.reads}
    for earlier, record in records.items():
        if record is None:
            raise InputError(
                f"{name}: {run.stage(earlier)} is not there yet: run `bentune {earlier}` first, or `bentune run`"
            )
    key = _key(stage, recipe, records)
    directory, module = run.stage(name), stage.load()
    still_there: Callable[[Path], bool] = getattr(module, "still_there", lambda _: True)
    record = run.record(name)
    if not force and record is not None and record.key == key and run.intact(record) and still_there(directory):
        return Outcome(name, directory, redone=False, seconds=record.seconds, summary=record.summary)
    work = run.begin(name, key, keep=stage.resumable and not force)
    start = time.monotonic()
    with explain_full_disk(run.root):
        try:
            summary = module.run(Context(recipe, work, inputs, report))
            seconds = time.monotonic() - start
            record = run.finish(name, key, summary, seconds)
        except Exception:
            if not stage.resumable:
                shutil.rmtree(work, ignore_errors=True)
            raise
    return Outcome(name, directory, redone=True, seconds=seconds, summary=record.summary)


def _key(stage: Stage, recipe: Recipe, records: Mapping[str, StageRecord | None]) -> str:
    values = recipe.model_dump(mode="json", include=set(stage.keys))
    inputs = {earlier: record.digest for earlier, record in records.items() if record is not None}
    return digest({"stage": stage.name, "recipe": values, "inputs": inputs, "outside": _outside(stage, recipe)})


def _outside(stage: Stage, recipe: Recipe) -> Sequence[str]:
    """Digests of what a stage reads that no stage wrote: the rows, the base model."""
    if stage.name == "data":
        digests: list[str] = importlib.import_module("training.data").source_digests(recipe.data)
        return digests
    if stage.name == "train":
        return [importlib.import_module("training.base_files").base_files_digest(recipe.model)]
    return []
