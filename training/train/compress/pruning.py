"""Second half of training with `prune`: pruning of the trained model, and tuning of the remaining weights.

    dense/ (trained, merged)  ->  pruned/ (smaller, not yet tuned again)  ->  model/ (the result)

Each directory is complete or absent, so that an interrupted run resumes in its phase.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.files import write_json
from training.pipeline.layout import TrainFiles
from training.pipeline.results import Pruned, Shrunk, TrainResult
from training.pipeline.stage import Reporter
from training.pipeline.workers import place
from training.recipe.compression import PruneSettings
from training.recipe.method import FullMethod
from training.recipe.recipe import Recipe
from training.tasks.targets.losses import Loss
from training.train.compress.magnitude import hold_zeros, release, zero_smallest, zeros
from training.train.compress.structured import layout_of, remove_least_important
from training.train.fit.fit import fit
from training.train.fit.trainer import last_whole_checkpoint
from training.train.methods import count, merge_tuned

DENSE = TrainFiles.dense.name
PRUNED = "pruned"
MODEL = TrainFiles.model.name
CHECKPOINTS = "pruned-checkpoints"
SUMMARY = "trained.json"


def require_prunable(model: PreTrainedModel, recipe: Recipe) -> None:
    """Raise InputError when the model cannot be pruned as the recipe requires.

    Call it before training.
    """
    if recipe.prune is not None and place().world > 1:
        raise InputError(f"prune: {place().world} processes cannot prune together: start without torchrun")
    if recipe.prune is None or recipe.prune.kind == "magnitude":
        return
    layout_of(model, recipe.prune.kind)
    if recipe.warm:
        raise InputError(
            f"prune.kind: {recipe.prune.kind} would prune the parent's model a second time: start cold, without "
            "train.warm_start"
        )


def dense_result(work: Path) -> TrainResult | None:
    """Read the summary of the training that an interrupted pruning followed.

    The result is None before pruning.
    """
    try:
        return TrainResult.model_validate_json((work / DENSE / SUMMARY).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def worth_keeping(work: Path) -> set[str]:
    """List the directories to keep after a failure.

    They are the completed phases, and the checkpoints of the current phase.
    """
    done = {name for name in (DENSE, PRUNED) if (work / name).is_dir()}
    return done | ({CHECKPOINTS} if last_whole_checkpoint(work / CHECKPOINTS) else set())


def prune_and_tune(
    recipe: Recipe,
    labels: list[str],
    trained: TrainResult,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    validation: Dataset | None,
    work: Path,
    report: Reporter,
    loss: Loss,
) -> Pruned:
    """Prune and tune the model in `work`, write model/, and summarize it.

    The model is the output of `save_tuned`. dense/ stays for the stage `evaluate`. `trained` is the summary of the
    training, which a resumed run reads from dense/.
    """
    if recipe.prune is None:
        raise ValueError("the recipe has no `prune`")
    if not (work / DENSE).is_dir():
        _keep_dense(recipe, labels, trained, work)
    for name in (TrainFiles.adapter.name, MODEL):  # written by `save_tuned`
        shutil.rmtree(work / name, ignore_errors=True)
    if not (work / PRUNED).is_dir():
        _prune(recipe.prune, recipe.seed, rows, tokenizer, loss, work, report)
    model = _load(work / PRUNED)
    shrunk = Shrunk.model_validate_json((work / PRUNED / SUMMARY).read_bytes())
    report.say(_message(shrunk))
    if recipe.prune.kind == "magnitude":
        hold_zeros(model)
    try:
        fitted = fit(model, tokenizer, tuned_again(recipe), rows, validation, work / CHECKPOINTS, report, loss)
    except BentuneError as error:
        raise BentuneError(f"after pruning: {error}") from error
    if recipe.prune.kind == "magnitude":
        release(model)
    _write(work / MODEL, model.save_pretrained)
    shutil.rmtree(work / PRUNED)
    shutil.rmtree(work / CHECKPOINTS)
    return Pruned(
        **shrunk.model_dump(exclude_unset=True) | {"zeros": zeros(model)},
        learning_rate=tuned_again(recipe).learning_rate,
        steps=fitted.steps,
        resumed_at_step=fitted.resumed_at,
        loss=fitted.loss,
        best_step=fitted.best_step,
        curve=fitted.curve,
    )


def _keep_dense(recipe: Recipe, labels: list[str], trained: TrainResult, work: Path) -> None:
    try:
        model = merge_tuned(recipe.model_copy(update={"prune": None}), labels, work)
    except ValueError as error:
        raise BentuneError(f"train: the merged weights are not finite; lower train.learning_rate: {error}") from error
    _write(work / DENSE, model.save_pretrained, lambda place: write_json(place / SUMMARY, trained.written()))


def _prune(
    settings: PruneSettings,
    seed: int,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    work: Path,
    report: Reporter,
) -> None:
    model = _load(work / DENSE)
    before, removed = count(model).total, dict[str, int]()
    if settings.kind == "magnitude":
        zero_smallest(model, settings.amount)
    else:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[: settings.importance_rows])
        with report.task("measuring importance", len(chosen)) as advance:
            removed = asdict(remove_least_important(model, settings, rows.select(chosen), tokenizer, loss, advance))
    shrunk = Shrunk(
        kind=settings.kind,
        amount=settings.amount,
        parameters_before=before,
        parameters=count(model).total,
        zeros=zeros(model),
        **removed,
    )
    content = shrunk.model_dump(exclude_unset=True)
    _write(work / PRUNED, model.save_pretrained, lambda place: write_json(place / SUMMARY, content))


def tuned_again(recipe: Recipe) -> Recipe:
    """Return the recipe of the second training, which tunes every weight."""
    if recipe.prune is None:
        raise ValueError("the recipe has no `prune`")
    again = {"epochs": recipe.prune.epochs, "learning_rate": recipe.prune_learning_rate}
    train = recipe.train.model_copy(update=again)
    return recipe.model_copy(update={"method": FullMethod(name="full"), "train": train})


def _message(found: Shrunk) -> str:
    if found.kind == "magnitude":
        return f"pruned: {found.zeros:.1%} of the encoder's linear weights are zero"
    return (
        f"pruned: {found.heads:,} of {found.heads_before:,} heads and {found.neurons:,} of {found.neurons_before:,} "
        f"neurons removed, {found.parameters:,} of {found.parameters_before:,} weights remain"
    )


def _load(directory: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        directory, use_safetensors=True, dtype=torch.float32, local_files_only=True
    )
    return model


def _write(place: Path, *writers: Callable[[Path], Any]) -> None:
    """Write a directory under another name and rename it when it is complete."""
    beside = place.with_name(place.name + ".partial")
    for old in (beside, place):
        shutil.rmtree(old, ignore_errors=True)
    beside.mkdir()
    for write in writers:
        write(beside)
    beside.rename(place)
