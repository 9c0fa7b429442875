"""Dry run: the stages that are due, and the time, memory and disk that training will need."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil

from bentune.bundle.errors import InputError
from bentune.bundle.files import Frozen
from bentune.bundle.hardware import memory_limit_bytes
from training.dry_run.estimate import Estimate, Rehearsal, estimate
from training.dry_run.process import OutOfMemory, call_in_subprocess
from training.pipeline.follow import Silent
from training.pipeline.layout import DataFiles
from training.pipeline.pipeline import NAMES, STAGES, run_stage, stages_of, standing, unfinished
from training.pipeline.run_dir import DiskFull, RunDir, explain_full_disk
from training.pipeline.stage import Reporter
from training.pipeline.workers import place
from training.plan.contention import MAX_CONTENTION
from training.recipe.recipe import Recipe

State = Literal["done", "due", "goes on"]
WORK = "dry-run.partial"
TIGHT = 0.9
"""Share of the memory above which the next training may not fit."""


class Due(Frozen):
    """State of a stage; `last_seconds` is its latest duration in runs of this name, None where it never ran."""

    stage: str
    state: State
    last_seconds: float | None


class DryRun(Frozen):
    """Needs of a run. MB are 10^6 bytes.

    `training` and `later_mb` are None where the train stage is done. `later_mb` is the largest amount that later stages
    write into the run and BentoML's stores. `memory_mb` is the memory of this machine or container. `free_mb` is the
    free disk space for the run; it includes the checkpoints and tokens of an interrupted training, because the estimate
    counts them again. `warnings` name possible problems.
    """

    run: str
    stages: tuple[Due, ...]
    training: Estimate | None
    memory_mb: float
    free_mb: float
    later_mb: float | None
    warnings: tuple[str, ...]


def dry_run(recipe: Recipe, run: RunDir, report: Reporter, *, whole: bool, force: bool = False) -> DryRun:
    """Prepare the data, and measure a few training steps in a subprocess.

    Only the data stage stays in the run. With `whole` the stages after training are listed too; with `force` training
    is measured even if it is done. Raises InputError when training does not fit into memory or on the disk.
    """
    if place().world > 1:
        raise InputError(
            f"--dry-run: {place().world} processes were started, and it measures one: start it without torchrun, and "
            "divide the batch size by their number, as in --set train.batch_size=8"
        )
    run_stage("data", recipe, run, report)
    done = standing(recipe, run)
    if force:
        done.pop("train", None)
    partial = None if force else unfinished("train", recipe, run)
    found = None
    if "train" not in done:
        with report.task("measuring some steps of training", None):
            found = _rehearsed(recipe, run, partial)
        for line in found.said:
            report.say(line)
    stages = stages_of(recipe) if whole else [stage for stage in stages_of(recipe) if stage.name in ("data", "train")]
    due: list[Due] = []
    for stage in stages:
        known = stage.name in done and all(one.state == "done" for one in due if one.stage in stage.reads)
        state: State = "done" if known else "goes on" if stage.name == "train" and partial is not None else "due"
        due.append(Due(stage=stage.name, state=state, last_seconds=_last_seconds(stage.name, run)))
    later = sum(_times_the_model(one.stage, recipe) for one in due if one.state == "due")
    limit = min(memory_limit_bytes() or psutil.virtual_memory().total, psutil.virtual_memory().total)
    result = DryRun(
        run=str(run.root),
        stages=tuple(due),
        training=estimate(found, prunes=recipe.prune is not None) if found is not None else None,
        memory_mb=limit / 1e6,
        free_mb=(shutil.disk_usage(run.root).free + (found.held_bytes if found is not None else 0)) / 1e6,
        later_mb=later * found.model_bytes / 1e6 if found is not None else None,
        warnings=(),
    )
    return result.model_copy(update={"warnings": tuple(_warnings(result, recipe))})


def _warnings(found: DryRun, recipe: Recipe) -> Iterator[str]:
    """Yield warnings about memory, disk and contention.

    Raises InputError when training cannot fit.
    """
    training = found.training
    if training is None:
        return
    if training.disk_mb > found.free_mb:
        raise InputError(
            f"train needs {training.disk_mb:,.0f} MB of disk for checkpoints and results, and {found.free_mb:,.0f} "
            f"MB are free beside {found.run}: make room, or give another directory with --runs"
        )
    if training.taken > MAX_CONTENTION:
        yield (
            f"other programs kept {training.taken:.0%} of the cores busy while steps were measured: training will be "
            "faster or slower as their load changes"
        )
    if training.peak_memory_mb > TIGHT * found.memory_mb:
        yield (
            f"training needs {training.peak_memory_mb:,.0f} MB of the {found.memory_mb:,.0f} MB of memory: a higher "
            "train.accumulation lowers that"
        )
    both = max(training.disk_mb, training.kept_mb + (found.later_mb or 0.0))
    if both > found.free_mb:
        yield (
            f"the whole run writes up to {both:,.0f} MB into it and BentoML's stores, and {found.free_mb:,.0f} MB are "
            f"free beside {found.run}"
        )
    if recipe.train.early_stopping is not None:
        yield "train.early_stopping may end the training sooner"


def _rehearsed(recipe: Recipe, run: RunDir, partial: Path | None) -> Rehearsal:
    work = run.root / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        return call_in_subprocess(_rehearse, recipe, run.files(DataFiles).directory.resolve(), work.resolve(), partial)
    except OutOfMemory as error:
        train = recipe.train
        raise InputError(
            f"train does not fit into memory ({error}): batch size {train.batch_size} needs more than "
            f"{train.accumulation} gradient accumulation steps; raise train.accumulation, or set "
            "train.gradient_checkpointing"
        ) from error
    except DiskFull as error:
        raise InputError(f"train: the disk of {run.root} is too full for a single checkpoint: make room") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _rehearse(recipe: Recipe, data: Path, work: Path, partial: Path | None) -> Rehearsal:
    """Measure training in a subprocess, the only process that imports torch."""
    STAGES[NAMES.index("train")].load(Silent())
    from training.dry_run.rehearsal import rehearse

    with explain_full_disk(work):
        return rehearse(recipe, data, work, partial)


def _last_seconds(stage: str, run: RunDir) -> float | None:
    """Return the duration of a stage in the newest run of this name that has it."""
    others = sorted((path for path in run.root.parent.iterdir() if path != run.root), reverse=True)
    found = (RunDir(root).record(stage) for root in (run.root, *others))
    return next((record.seconds for record in found if record is not None), None)


def _times_the_model(stage: str, recipe: Recipe) -> int:
    """Return the largest number of copies of the model that a stage writes.

    The plan and the bundle may hold all variants.
    """
    variants = 1 + len(recipe.plan.variants)
    return {"merge": 1, "calibrate": 1, "export": 1, "plan": 1 + variants, "package": variants}.get(stage, 0)
