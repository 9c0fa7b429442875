"""Stage `train`: fine-tuning of the base model on the training set, saved as an adapter or a model."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from bentune.bundle.arrays import Logits
from bentune.bundle.files import write_json
from training.pipeline.previous_version import open_parent, weights_of
from training.pipeline.provenance import training_hardware
from training.pipeline.stage import Context, Reporter, Summary
from training.pipeline.workers import place, team
from training.recipe.recipe import Recipe
from training.tasks.base import base_digest, load_base, quiet
from training.tasks.image.rows import ImageRows
from training.tasks.logits import Processor
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
from training.train.fit.fsdp import fsdp_requested, require_shardable
from training.train.fit.rows import TrainingRows, training_rows
from training.train.fit.trainer import last_whole_checkpoint
from training.train.methods import BASE, count, prepare, save_tuned

CHECKPOINTS = "checkpoints"
TOKENS = "tokens"
Ask = Callable[[Recipe, TrainingRows, list[str], Path, Reporter], tuple[Logits, Summary]]


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """Inputs of a training: the model, tokenized rows with `labels`, the loss, and their summary."""

    model: torch.nn.Module
    tokenizer: Processor
    labels: list[str]
    rows: Dataset | ImageRows
    validation: Dataset | ImageRows | None
    loss: Loss
    summary: Summary


def run(context: Context, callbacks: Sequence[TrainerCallback] = ()) -> Summary:
    """Write adapter/ or model/, tokenizer/, labels.json and base.json; `callbacks` are passed to Trainer.

    An interrupted run resumes from its last complete checkpoint in the same directory, and ends with the same weights
    as an uninterrupted one. Raises BentuneError when the loss is no longer a number, InputError for a recipe that does
    not fit its labels, rows or base model.
    """
    recipe, work = context.recipe, context.work
    ready = prepare_training(context)
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
            return {}  # rank 0 writes
        save_tuned(ready.model, recipe.method, work)
        summary = {**ready.summary, **_fit_summary(fitted, context.report)}
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


def prepare_training(context: Context, ask: Ask = ask_teacher) -> TrainingInputs:
    """Load the base, prepare the method and tokenize the rows; `ask` computes a teacher's logits.

    Writes tokenizer/, base.json, and the memory-mapped rows into tokens/. With several processes rank 0 alone tokenizes
    texts and runs the teacher, and the other workers read its files.
    """
    quiet()
    recipe, work, data = context.recipe, context.work, context.inputs["data"]
    require_shardable(recipe)
    require_deepspeed(recipe)
    labels, task = labels_of(data), task_of(recipe)
    start = _start(recipe, data.parents[2])
    tokenizer = task.processor(start)
    tokenizer.save_pretrained(work / "tokenizer")  # before its first use, which changes its truncation and padding
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
        context.report.say(f"training set: {len(seen)} rows made of {given}, {seen.perturbed} of them perturbed")
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
    return TrainingInputs(model, tokenizer, labels, rows, validation, loss, summary)


def _fit_summary(fitted: Fitted, report: Reporter) -> Summary:
    """Summarize a training, and report the warnings about its curves."""
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
        "sharded": fsdp_requested(),
        "warnings": warnings,
        "curve": fitted.curve,
    }


def _start(recipe: Recipe, runs: Path) -> Recipe:
    """Set the model that training starts from: the recipe's own, or that of the previous version's run."""
    if not recipe.warm or recipe.parent is None:
        return recipe
    weights = weights_of(open_parent(recipe.parent), recipe.model, runs)
    return recipe.model_copy(update={"model": str(weights.resolve())})


def worth_keeping(work: Path) -> set[str]:
    """List what to keep after a failure: complete checkpoints, teacher logits and pruning phases."""
    checkpoints = {CHECKPOINTS} if last_whole_checkpoint(work / CHECKPOINTS) else set()
    return checkpoints | ({ANSWERS} if (work / ANSWERS).is_file() else set()) | pruning.worth_keeping(work)
