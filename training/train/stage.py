"""Stage `train`: fine-tuning of the base model on the training set, saved as an adapter or a model."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from bentune.bundle.arrays import Logits
from bentune.bundle.files import write_json
from training.pipeline.layout import DataFiles, TrainFiles
from training.pipeline.previous_version import open_parent, weights_of
from training.pipeline.provenance import training_hardware
from training.pipeline.results import DistilledFrom, Parameters, TrainResult, TrainStart
from training.pipeline.stage import Context, Reporter
from training.pipeline.workers import place, team
from training.recipe.recipe import Recipe
from training.tasks.base.load import base_digest, load_base, pad_as_tokenizer, quiet
from training.tasks.image.rows import ImageRows
from training.tasks.logits import Processor
from training.tasks.registry import task_of
from training.tasks.rows import Rows, open_rows
from training.tasks.saved import labels_of, target_in
from training.tasks.targets.losses import Loss
from training.train.compress import pruning
from training.train.compress.distillation import ANSWERS, DistillationLoss, ask_teacher, taught
from training.train.compress.pruning import dense_result, prune_and_tune, require_prunable
from training.train.curves import curve_warnings
from training.train.fit.deepspeed import require_deepspeed
from training.train.fit.fit import Fitted, fit
from training.train.fit.fsdp import fsdp_requested, require_shardable
from training.train.fit.rows import TrainingRows, training_rows
from training.train.fit.trainer import last_whole_checkpoint
from training.train.methods import UsedBase, count, prepare, save_tuned

CHECKPOINTS = "checkpoints"
TOKENS = "tokens"
Ask = Callable[[Recipe, TrainingRows, list[str], Path, Reporter], tuple[Logits, DistilledFrom | None]]


@dataclass(frozen=True, slots=True)
class TrainingInputs:
    """Inputs of a training: the model, tokenized rows with `labels`, the loss, and their summary."""

    model: torch.nn.Module
    tokenizer: Processor
    labels: list[str]
    rows: Dataset | ImageRows
    validation: Dataset | ImageRows | None
    loss: Loss
    start: TrainStart


def run(context: Context, callbacks: Sequence[TrainerCallback] = ()) -> TrainResult:
    """Write adapter/ or model/, tokenizer/, labels.json and base.json.

    `callbacks` are passed to Trainer. An interrupted run resumes from its last complete checkpoint in the same
    directory, and ends with the same weights as an uninterrupted one. Raises BentuneError when the loss is no longer a
    number, InputError for a recipe that does not fit its labels, rows or base model.
    """
    recipe, work = context.recipe, context.work
    ready = prepare_training(context)
    result = dense_result(work)
    if result is None:
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
        result = _result(ready.start, fitted, context.report)
        if not place().leads:
            return result  # rank 0 writes
        save_tuned(ready.model, recipe.method, work)
    write_json(TrainFiles(work).labels, ready.labels)
    shutil.copyfile(context.files(DataFiles).target, TrainFiles(work).target)
    if recipe.prune is not None:
        pruned = prune_and_tune(
            recipe,
            ready.labels,
            result,
            cast("PreTrainedTokenizerBase", ready.tokenizer),  # images are not pruned: training.recipe.refused
            ready.rows,
            ready.validation,
            work,
            context.report,
            ready.loss,
        )
        result = result.model_copy(update={"pruned": pruned})
    for left in (work / CHECKPOINTS, work / TOKENS, work / ANSWERS):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return result


def prepare_training(context: Context, ask: Ask = ask_teacher) -> TrainingInputs:
    """Load the base, prepare the method and tokenize the rows.

    `ask` computes a teacher's logits. Writes tokenizer/, base.json, and the memory-mapped rows into tokens/. With
    several processes rank 0 alone tokenizes texts and runs the teacher, and the other workers read its files.
    """
    quiet()
    recipe, work, data = context.recipe, context.work, context.files(DataFiles)
    require_shardable(recipe)
    require_deepspeed(recipe)
    labels, task = labels_of(data.directory), task_of(recipe)
    start = _start(recipe, data.directory.parents[2])
    tokenizer = task.processor(start)
    tokenizer.save_pretrained(
        TrainFiles(work).tokenizer
    )  # before its first use, which changes its truncation and padding
    base = load_base(start, labels)
    padding = pad_as_tokenizer(base.model.config, tokenizer)
    digest = base_digest(start, base.model)
    used = UsedBase(
        source=recipe.model, sha256=digest, warm_start=start.model if recipe.warm else None, pad_token_id=padding
    )
    write_json(TrainFiles(work).base, used.model_dump(exclude_none=True))
    if base.head:
        context.report.say(base.head)
    require_prunable(base.model, recipe)
    model = prepare(base, recipe.method)
    parameters = count(model)
    context.report.say(
        f"{recipe.method.name}: {parameters.trainable:,} of {parameters.total:,} weights are trained "
        f"({parameters.trainable / parameters.total:.1%})"
    )
    target = task.target(recipe.data)
    seen = training_rows(open_rows(data.train), recipe.train, target, len(labels), recipe.seed)
    given = len(seen.given)
    if len(seen) != given or seen.perturbed:
        context.report.say(f"training set: {len(seen)} rows made of {given}, {seen.perturbed} of them perturbed")
    bundle_target = target_in(data.directory)

    def learned(parts: Iterable[Rows]) -> Iterator[Rows]:
        return (replace(part, labels=target.learned(part.labels, bundle_target)) for part in parts)

    validation = None
    with context.report.task("preparing the rows", None):
        rows = task.dataset(learned(seen.parts()), tokenizer, recipe.max_tokens, work / TOKENS / "train.arrow")
        if data.validation.is_file():
            held_back = open_rows(data.validation).parts()
            file = work / TOKENS / "validation.arrow"
            validation = task.dataset(learned(held_back), tokenizer, recipe.max_tokens, file)
    if isinstance(rows, ImageRows):
        rows = rows.augmented(recipe.train.augment, recipe.seed)
    loss: Loss = seen.loss
    teacher = None
    if recipe.distill is not None:
        if team().leads:
            answers, teacher = ask(recipe, seen, labels, work, context.report)
            team().broadcast(str((work / ANSWERS).resolve()))
        else:
            answers = np.load(team().broadcast(None), allow_pickle=False)
        rows, loss = taught(rows, answers), DistillationLoss(recipe.distill, loss)
    started = TrainStart(
        base=recipe.parent if recipe.warm and recipe.parent else recipe.model,
        base_sha256=digest,
        method=recipe.method.name,
        parameters=Parameters(trainable=parameters.trainable, total=parameters.total),
        training_rows=seen.summary(labels),
        learning_rate=recipe.learning_rate,
        hardware=training_hardware(),
    )
    if base.head:
        started = started.model_copy(update={"head": base.head})
    if teacher is not None:
        started = started.model_copy(update={"teacher": teacher})
    return TrainingInputs(model, tokenizer, labels, rows, validation, loss, started)


def _result(start: TrainStart, fitted: Fitted, report: Reporter) -> TrainResult:
    """Build the stage's result, and report warnings about its learning curves."""
    warnings = curve_warnings(fitted.curve, fitted.best_step)
    for warning in warnings:
        report.say(f"[yellow]![/] {warning}")
    return TrainResult(
        **start.model_dump(exclude_unset=True),
        steps=fitted.steps,
        resumed_at_step=fitted.resumed_at,
        loss=fitted.loss,
        best_step=fitted.best_step,
        stopped_early=fitted.stopped_early,
        precision=fitted.precision,
        processes=fitted.processes,
        sharded=fsdp_requested(),
        warnings=warnings,
        curve=fitted.curve,
    )


def _start(recipe: Recipe, runs: Path) -> Recipe:
    """Set the model from which training starts: the recipe's, or the parent's weights."""
    if not recipe.warm or recipe.parent is None:
        return recipe
    weights = weights_of(open_parent(recipe.parent), recipe.model, runs)
    return recipe.model_copy(update={"model": str(weights.resolve())})


def worth_keeping(work: Path) -> set[str]:
    """List the names to keep after a failure: checkpoints, teacher logits, pruning."""
    checkpoints = {CHECKPOINTS} if last_whole_checkpoint(work / CHECKPOINTS) else set()
    return checkpoints | ({ANSWERS} if (work / ANSWERS).is_file() else set()) | pruning.worth_keeping(work)
