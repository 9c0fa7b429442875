"""The pipeline: the order of the stages, their dependencies, and the choice of stages to run again."""

import importlib
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from bentune.bundle.errors import InputError
from bentune.bundle.hardware import describe
from service.engine.providers import available
from training.pipeline.follow import call
from training.pipeline.layout import DataFiles
from training.pipeline.results import RESULTS, Result
from training.pipeline.run_dir import RunDir, explain_full_disk
from training.pipeline.stage import MODULES, Context, Reporter
from training.pipeline.workers import team
from training.recipe.file import digest
from training.recipe.recipe import Recipe
from training.tasks.registry import task_of


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: the earlier stages that it reads, and the sections or values of the recipe that it depends on.

    `resumable`: unfinished work is kept, as far as the module's worth_keeping() names it; other stages start over.
    `stores_elsewhere`: the module's still_there() checks that the stored artifacts exist. `proves`: the stage checks
    its inputs itself, so changed inputs are no error. `only_if`: the recipe's value without which there is no such
    stage. `together`: every rank takes part. `layout`: a number to raise when the stage's files change, so that old
    runs do the stage again.
    """

    name: str
    reads: tuple[str, ...]
    keys: tuple[str, ...]
    resumable: bool = False
    stores_elsewhere: bool = False
    proves: bool = False
    only_if: str = ""
    together: bool = False
    layout: int = 2

    def wanted(self, recipe: Recipe) -> bool:
        """Return True when the recipe has this stage."""
        return not self.only_if or bool(reduce(getattr, self.only_if.split("."), recipe))

    def load(self, report: Reporter) -> Any:
        """Import the stage's module, late, so that other commands start faster."""
        with report.task(f"loading what `{self.name}` needs", None):
            # PEFT and Trainer import bitsandbytes, which warns about a kernel from a hub.
            logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
            return importlib.import_module(MODULES[self.name])


STAGES = (
    Stage(
        "data",
        (),
        (
            *("data", "seed", "task", "model", "max_tokens", "parent", "evaluate.slices"),
            *("compare.slices", "compare.frozen", "compare.max_rows"),
        ),
        layout=7,
    ),
    Stage(
        "train",
        ("data",),
        ("task", "model", "method", "max_tokens", "seed", "train", "distill", "prune", "parent"),
        resumable=True,
        together=True,
        layout=5,
    ),
    Stage("merge", ("train",), ("model", "method", "seed", "distill", "prune")),
    Stage("calibrate", ("data", "merge"), ("max_tokens",), only_if="calibrate.temperature"),
    Stage(
        "evaluate",
        ("data", "train", "calibrate"),
        ("model", "method", "max_tokens", "seed", "distill", "prune", "evaluate"),
        layout=4,
    ),
    Stage("export", ("merge", "calibrate"), ("task",)),
    Stage(
        "verify",
        ("data", "train", "merge", "calibrate", "export"),
        ("model", "method", "max_tokens", "seed", "distill", "prune", "verify"),
        proves=True,
        layout=3,
    ),
    Stage("plan", ("data", "export", "verify"), ("max_tokens", "seed", "plan"), layout=3),
    Stage(
        "package",
        ("data", "train", "evaluate", "merge", "export", "verify", "plan"),
        tuple(name for name in Recipe.model_fields if name != "search"),
        stores_elsewhere=True,
        layout=7,
    ),
)
NAMES = tuple(stage.name for stage in STAGES)


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """Return the stages of a run of this recipe, in their order."""
    return tuple(stage for stage in STAGES if stage.wanted(recipe))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One stage after a run: `redone` is false when its former result is still valid."""

    stage: str
    directory: Path
    redone: bool
    seconds: float
    result: Result
    recipe: Recipe


def identity(recipe: Recipe) -> str:
    """Return a digest of the recipe, the rows and the parent.

    On one machine these determine the outcome of a run.
    """
    return digest({"recipe": recipe.model_dump(mode="json"), "outside": _outside(STAGES[0], recipe)})


def run_all(recipe: Recipe, run: RunDir, report: Reporter, *, again: Collection[str] = ()) -> Iterator[Outcome]:
    """Run every stage whose recipe values or inputs changed, and yield each outcome.

    The stages run in order, and each outcome is yielded as it comes. The stages named in `again` are run even if
    nothing changed. Raises InputError at once when the last of them could not store what it makes, and GateError after
    the outcome of a stage whose result forbids to go on.
    """
    importlib.import_module("bentune.bundle.store").require_store()
    for stage in stages_of(recipe):
        with explain_full_disk(run.root):
            outcome = _run(stage, recipe, run, report, force=stage.name in again)
        yield outcome
        outcome.result.require_passed()


def run_stage(name: str, recipe: Recipe, run: RunDir, report: Reporter, *, force: bool = False) -> Outcome:
    """Run one stage, unless it is done and its dependencies are unchanged.

    Raises InputError when the recipe does not have the stage, and when an earlier one is not done, was done for other
    recipe values, or was changed afterwards; GateError when the result of an earlier one forbids to go on.
    """
    stage = STAGES[NAMES.index(name)]
    if not stage.wanted(recipe):
        raise InputError(f"{name}: the recipe does not have this stage: set {stage.only_if}")
    with explain_full_disk(run.root):
        changed = _require_inputs(stage, recipe, run)
        return _run(stage, recipe, run, report, force=force or changed)


def standing(recipe: Recipe, run: RunDir) -> dict[str, Path]:
    """Return the directories of the stages that are done for this recipe, by name.

    The stages are unchanged since, and in their order. A stage is left out when a stage that it reads is.
    """
    found: dict[str, Path] = {}
    wanted = {stage.name for stage in stages_of(recipe)}
    for stage in stages_of(recipe):
        record = run.record(stage.name)
        whole = record is not None and record.key == _key(stage, recipe, run) and run.intact(record)
        if whole and found.keys() >= wanted.intersection(stage.reads):
            found[stage.name] = run.stage(stage.name)
    return found


def unfinished(name: str, recipe: Recipe, run: RunDir) -> Path | None:
    """Return the directory from which an interrupted stage would resume.

    The inputs of the stage must be done.
    """
    stage = STAGES[NAMES.index(name)]
    return run.unfinished(name, _key(stage, recipe, run)) if stage.resumable else None


def _run(stage: Stage, recipe: Recipe, run: RunDir, report: Reporter, *, force: bool) -> Outcome:
    """Run a stage whose inputs are done, unless it is done and nothing changed."""
    directory, record = run.stage(stage.name), run.record(stage.name)
    key = _key(stage, recipe, run)
    if (
        not force
        and record is not None
        and record.key == key
        and run.intact(record)
        and _still_there(stage, directory, report)
    ):
        known = record.result(RESULTS[stage.name])
        return Outcome(stage.name, directory, redone=False, seconds=record.seconds, result=known, recipe=recipe)
    module = stage.load(report)
    start = time.monotonic()
    inputs = {earlier: run.stage(earlier) for earlier in _reads(stage, recipe)}
    if stage.name == "train":
        # The stage itself does not depend on it, but the run would fail when all is trained.
        importlib.import_module("training.data.before_training").require_measurable(recipe, run.files(DataFiles))
        importlib.import_module("training.preflight").preflight(recipe, run, report)
    worth_keeping = getattr(module, "worth_keeping", None)
    with (
        run.working(stage.name, key, keep=stage.resumable and not force, worth_keeping=worth_keeping) as work,
        explain_full_disk(run.root),
    ):
        if stage.together:
            call(team(), stage.name, recipe, inputs)
        result: Result = module.run(Context(recipe, work, inputs, report))
        seconds = time.monotonic() - start
        run.finish(key, result, seconds)
    return Outcome(stage.name, directory, redone=True, seconds=seconds, result=result, recipe=recipe)


def _still_there(stage: Stage, directory: Path, report: Reporter) -> bool:
    return not stage.stores_elsewhere or bool(stage.load(report).still_there(directory))


def _require_inputs(stage: Stage, recipe: Recipe, run: RunDir) -> bool:
    """Return True when an input was changed since it was written.

    Raises InputError where the stage cannot run.
    """
    for earlier in stages_of(recipe):
        if earlier.name not in _upstream(stage):
            continue
        record = run.record(earlier.name)
        if record is None:
            raise InputError(
                f"{stage.name}: {run.stage(earlier.name)} is not there yet: run `bentune {earlier.name}` first, or "
                "`bentune run`"
            )
        if record.key != _key(earlier, recipe, run):
            raise InputError(
                f"{stage.name}: the recipe, the data, the base model or the hardware is not what it was for "
                f"`{earlier.name}`: run `bentune {earlier.name}` first, or `bentune run`"
            )
        record.result(RESULTS[earlier.name]).require_passed()
    broken = [earlier for earlier in _reads(stage, recipe) if not _intact(earlier, run)]
    if broken and not stage.proves:
        raise InputError(
            f"{stage.name}: {run.stage(broken[0])} was changed after it was written: run `bentune {broken[0]}` again, "
            "or `bentune run`"
        )
    return bool(broken)


def _reads(stage: Stage, recipe: Recipe) -> list[str]:
    wanted = {one.name for one in stages_of(recipe)}
    return [earlier for earlier in stage.reads if earlier in wanted]


def _upstream(stage: Stage) -> set[str]:
    names = set(stage.reads)
    for earlier in stage.reads:
        names |= _upstream(STAGES[NAMES.index(earlier)])
    return names


def _intact(name: str, run: RunDir) -> bool:
    record = run.record(name)
    return record is not None and run.intact(record)


def _key(stage: Stage, recipe: Recipe, run: RunDir) -> str:
    dumped = recipe.model_dump(mode="json")
    values = {key: reduce(getitem, key.split("."), dumped) for key in stage.keys}
    read = _reads(stage, recipe)
    inputs = {earlier: record.digest for earlier in read if (record := run.record(earlier)) is not None}
    outside = _outside(stage, recipe)
    return digest({"layout": stage.layout, "stage": stage.name, "recipe": values, "inputs": inputs, "outside": outside})


def _outside(stage: Stage, recipe: Recipe) -> list[str]:
    """Return digests of a stage's dependencies outside the run.

    These are the rows, the parent, the base model, the teacher and the hardware.
    """
    if stage.name == "data":
        digests = task_of(recipe).source_digests(recipe.data, recipe.carried)
        return [*digests, *_parent(recipe)]
    if stage.name == "train":
        teacher = _teacher(recipe)
        if recipe.warm:
            return [*_parent(recipe), *teacher]
        return [importlib.import_module("training.pipeline.fingerprints").base_files_digest(recipe.model), *teacher]
    if stage.name == "plan":
        return [describe().model_dump_json(), *available()]
    return []


def _parent(recipe: Recipe) -> list[str]:
    if recipe.parent is None:
        return []
    return [importlib.import_module("training.pipeline.previous_version").open_parent(recipe.parent).content]


def _teacher(recipe: Recipe) -> list[str]:
    if recipe.distill is None:
        return []
    return [importlib.import_module("training.pipeline.fingerprints").teacher_digest(recipe.distill.teacher)]
