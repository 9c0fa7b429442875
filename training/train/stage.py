"""Stage `train`: fine-tunes the base model on the training rows and saves the adapter or the model."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from bentune.bundle.manifest import write_json
from training.pipeline.previous_version import open_parent, weights_of
from training.pipeline.provenance import training_hardware
from training.pipeline.stage import Context, Reporter, Summary
from training.pipeline.workers import place, team
from training.recipe.recipe import Recipe
from training.tasks.base import base_digest, load_base, quiet
from training.tasks.image.rows import ImageRows
from training.tasks.logits import Logits, Processor
from training.tasks.registry import task_of
from training.tasks.rows import Rows, open_rows
from training.tasks.saved import TARGET, labels_of, target_in
from training.tasks.targets.losses import Loss
from training.train.compress import pruning
from training.train.compress.distillation import ANSWERS, DistillationLoss, ask_teacher, taught
from training.train.compress.pruning import dense_summary, prune_and_tune, require_prunable
from training.train.curves import curve_warnings
from training.train.fit.deepspeed import require_deepspeed
from training.train.fit.fit import Fitted, fit
from training.train.fit.fsdp import asked_for, require_shardable
from training.train.fit.rows import TrainingRows, training_rows
from training.train.fit.trainer import last_whole_checkpoint
from training.train.methods import BASE, count, prepare, save_tuned

CHECKPOINTS = "checkpoints"
TOKENS = "tokens"
Ask = Callable[[Recipe, TrainingRows, list[str], Path, Reporter], tuple[Logits, Summary]]


@dataclass(frozen=True, slots=True)
class Ready:
    """What a training starts from: the model to train, tokenized rows with `labels`, and what is told of them."""

    model: torch.nn.Module
    tokenizer: Processor
    labels: list[str]
    rows: Dataset | ImageRows
    validation: Dataset | ImageRows | None
    loss: Loss
    summary: Summary


def run(context: Context, callbacks: Sequence[TrainerCallback] = ()) -> Summary:
    """Write adapter/ or model/, tokenizer/, labels.json and base.json; `callbacks` watch the training.

    A run that was interrupted goes on from its last whole checkpoint in the same directory, and ends with the weights
    that it would have had. Raises BentuneError when the loss is no longer a number, InputError for a
    recipe that asks for what its labels, rows or base model do not have.
    """
    recipe, work = context.recipe, context.work
    ready = prepared(context)
    summary = dense_summary(work)
    if summary is None:
        fitted = fit(
            ready.model,
            ready.tokenizer,
            recipe,
            ready.rows,
            ready.validation,
            work / CHECKPOINTS,
            context.report,
            ready.loss,
            callbacks,
        )
        if not place().leads:
            return {}  # the leader writes
        save_tuned(ready.model, recipe.method, work)
        summary = {**ready.summary, **_went(fitted, context.report)}
    write_json(work / "labels.json", ready.labels)
    shutil.copyfile(context.inputs["data"] / TARGET, work / TARGET)
    if recipe.prune is not None:
        pruned = prune_and_tune(
            recipe,
            ready.labels,
            summary,
            cast("PreTrainedTokenizerBase", ready.tokenizer),  # images are not pruned: training.recipe.refused
            ready.rows,
            ready.validation,
            work,
            context.report,
            ready.loss,
        )
        summary = {**summary, "pruned": pruned}
    for left in (work / CHECKPOINTS, work / TOKENS, work / ANSWERS):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return summary


def prepared(context: Context, ask: Ask = ask_teacher) -> Ready:
    """Load the base, prepare the method, and tokenize the rows; `ask` gives a teacher's answers to them.

    Writes tokenizer/, base.json, and into tokens/ what the rows are mapped from. Where several processes train, the
    leader alone tokenizes texts and asks the teacher, and the others read its files.
    """
    quiet()
    recipe, work, data = context.recipe, context.work, context.inputs["data"]
    require_shardable(recipe)
    require_deepspeed(recipe)
    labels, task = labels_of(data), task_of(recipe)
    start = _start(recipe, data.parents[2])
    tokenizer = task.processor(start)
    tokenizer.save_pretrained(work / "tokenizer")  # before it is used, which would leave its mark
    base = load_base(start, labels)
    digest = base_digest(start, base.model)
    warm = {"warm_start": start.model} if recipe.warm else {}
    write_json(work / BASE, {"source": recipe.model, "sha256": digest} | warm)
    require_prunable(base.model, recipe)
    model = prepare(base, recipe.method)
    parameters = count(model)
    context.report.say(
        f"{recipe.method.name}: {parameters.trainable:,} of {parameters.total:,} weights are trained "
        f"({parameters.trainable / parameters.total:.1%})"
    )
    target = task.target(recipe.data)
    seen = training_rows(open_rows(data / "train.parquet"), recipe.train, target, len(labels), recipe.seed)
    given = len(seen.given)
    if len(seen) != given or seen.perturbed:
        context.report.say(f"training sees {len(seen)} rows of {given}, {seen.perturbed} of them perturbed")
    bundle_target = target_in(data)

    def learned(parts: Iterable[Rows]) -> Iterator[Rows]:
        return (replace(part, labels=target.learned(part.labels, bundle_target)) for part in parts)

    validation = None
    with context.report.task("preparing the rows", None):
        rows = task.dataset(learned(seen.parts()), tokenizer, recipe.max_tokens, work / TOKENS / "train.arrow")
        if (data / "validation.parquet").is_file():
            held_back = open_rows(data / "validation.parquet").parts()
            file = work / TOKENS / "validation.arrow"
            validation = task.dataset(learned(held_back), tokenizer, recipe.max_tokens, file)
    if isinstance(rows, ImageRows):
        rows = rows.augmented(recipe.train.augment, recipe.seed)
    loss, distilled = seen.loss, Summary()
    if recipe.distill is not None:
        if team().leads:
            answers, distilled = ask(recipe, seen, labels, work, context.report)
            team().agree(str((work / ANSWERS).resolve()))
        else:
            answers = np.load(team().agree(None), allow_pickle=False)
        rows, loss = taught(rows, answers), DistillationLoss(recipe.distill, loss)
    summary = {
        "base": recipe.parent if recipe.warm else recipe.model,
        "base_sha256": digest,
        "method": recipe.method.name,
        "parameters": asdict(parameters),
        "training_rows": seen.summary(labels),
        "learning_rate": recipe.learning_rate,
        "hardware": training_hardware(),
        **distilled,
    }
    return Ready(model, tokenizer, labels, rows, validation, loss, summary)


def _went(fitted: Fitted, report: Reporter) -> Summary:
    """How the training went; what is wrong with its curves is said."""
    warnings = curve_warnings(fitted.curve, fitted.best_step)
    for warning in warnings:
        report.say(f"[yellow]![/] {warning}")
    return {
        "steps": fitted.steps,
        "resumed_at_step": fitted.resumed_at,
        "loss": fitted.loss,
        "best_step": fitted.best_step,
        "stopped_early": fitted.stopped_early,
        "precision": fitted.precision,
        "processes": fitted.processes,
        "sharded": asked_for(),
        "warnings": warnings,
        "curve": fitted.curve,
    }


def _start(recipe: Recipe, runs: Path) -> Recipe:
    """The recipe with the model that training starts from: its own, or what the parent's run left."""
    if not recipe.warm or recipe.parent is None:
        return recipe
    weights = weights_of(open_parent(recipe.parent), recipe.model, runs)
    return recipe.model_copy(update={"model": str(weights.resolve())})


def worth_keeping(work: Path) -> set[str]:
    """After a failure: the checkpoints, if one is whole, and what is done of distilling and pruning."""
    checkpoints = {CHECKPOINTS} if last_whole_checkpoint(work / CHECKPOINTS) else set()
    return checkpoints | ({ANSWERS} if (work / ANSWERS).is_file() else set()) | pruning.worth_keeping(work)
