"""Training with transformers' Trainer: checkpoints, validation, progress, and resuming an interrupted run."""

import contextlib
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    TrainerCallback,
)
from transformers.trainer_callback import PrinterCallback

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.hardware import visible_cores
from training.pipeline import workers as processes
from training.pipeline.results import CurvePoint
from training.pipeline.stage import Reporter
from training.recipe.recipe import Recipe
from training.recipe.train import Precision
from training.tasks.image.processor import ImageProcessor
from training.tasks.image.rows import ImageRows, collated
from training.tasks.logits import Processor
from training.tasks.registry import target_of
from training.tasks.targets.losses import Loss
from training.tasks.targets.target import TrainingTarget
from training.tasks.text.tokenized import lengths_of
from training.train.fit import deepspeed
from training.train.fit.arguments import (
    accelerate_precision,
    evaluation_steps,
    precision_for,
    total_steps,
    training_arguments,
)
from training.train.fit.fsdp import gather, require_same_sharding
from training.train.fit.sampler import LengthSampler
from training.train.fit.trainer import ProgressCallback, RowTrainer, finite, is_finished, last_whole_checkpoint, step_of

CURVE = ("step", "epoch", "learning_rate", "grad_norm", "loss", "eval_loss")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Result of a training: the curve, one entry per logged or validated step, and the mean loss over all steps.

    `best_step` is the step whose weights were kept, None without a validation set. `stopped_early` is true where early
    stopping ended the training before the recipe's last step.
    """

    steps: int
    resumed_at: int
    loss: float
    curve: list[CurvePoint]
    best_step: int | None
    stopped_early: bool
    precision: Precision
    processes: int


def fit(
    model: torch.nn.Module,
    tokenizer: Processor,
    recipe: Recipe,
    rows: Dataset | ImageRows,
    validation: Dataset | ImageRows | None,
    checkpoints: Path,
    report: Reporter,
    loss: Loss,
    callbacks: Sequence[TrainerCallback] = (),
) -> Fitted:
    """Train `model` in place and restore its best checkpoint on `validation`.

    `rows` and `validation` are tokenized and have `labels`. Under torchrun every process calls this, and all use the
    `checkpoints` of rank 0. `callbacks` are added to Trainer's own. Training resumes from the last complete checkpoint
    in `checkpoints`; the caller removes that directory after saving the model. Raises BentuneError when the loss is no
    longer a number, InputError when the recipe does not fit the model, the rows or the hardware.
    """
    team, here = processes.team(), processes.place()
    checkpoints = Path(team.broadcast(str(checkpoints.resolve())))
    with contextlib.redirect_stdout(sys.stderr):  # an installed DeepSpeed is imported here, and prints a line
        trainer = trainer_of(model, tokenizer, recipe, rows, validation, checkpoints, loss)
    if here.world > 1:
        torch.manual_seed(recipe.seed + here.rank)  # else dropout is the same in every process
        torch.set_num_threads(max(1, visible_cores() // here.local))
    found = team.broadcast(str(last_whole_checkpoint(checkpoints) or "") if team.leads else "")
    checkpoint = Path(found) if found else None
    if checkpoint:
        require_same_sharding(checkpoint, recipe)
    resumed_at = step_of(checkpoint) if checkpoint else 0
    if checkpoint:
        report.say(f"resuming from step {resumed_at}")
    steps = total_steps(recipe, len(rows))
    with report.task("training", steps) as advance, warnings.catch_warnings(), processes.explain_lost_peer():
        warnings.simplefilter("ignore")
        advance(resumed_at)
        for callback in callbacks:
            trainer.add_callback(callback)
        every = evaluation_steps(recipe, len(rows)) if validation else None
        trainer.add_callback(ProgressCallback(advance, resumed_at, every))
        with deepspeed.stdout_kept(recipe):
            if checkpoint and is_finished(checkpoint, steps):
                trainer.restore(checkpoint)
            else:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if recipe.train.deepspeed is None:
            gather(model, keep=team.leads)
        else:
            deepspeed.gather(model, keep=team.leads)
        trainer.accelerator.wait_for_everyone()  # a process may still read a checkpoint that rank 0 removes
    if here.world > 1:
        torch.set_num_threads(visible_cores())
    if recipe.train.gradient_checkpointing:
        cast("PreTrainedModel", model).gradient_checkpointing_disable()
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    # With sharded weights only rank 0 has all of them; the other workers end with its error.
    broken = team.leads and not all(torch.isfinite(weight).all() for weight in model.parameters())
    if broken or not finite(history):
        if team.leads:
            shutil.rmtree(checkpoints)  # none of them is worth resuming
        raise BentuneError(
            f"the training loss is no longer a number at step {trainer.state.global_step}: lower train.learning_rate "
            f"(it is {recipe.learning_rate:g})"
        )
    curve_keys = (*CURVE, *(f"eval_{metric}" for metric in target_of(recipe).validation))
    return Fitted(
        steps=trainer.state.global_step,
        resumed_at=resumed_at,
        loss=_mean_loss(history),
        curve=[CurvePoint.model_validate({key: entry[key] for key in curve_keys if key in entry}) for entry in history],
        best_step=trainer.state.best_global_step if validation else None,
        stopped_early=trainer.state.global_step < steps,
        precision=precision_for(recipe.train.precision),
        processes=here.world,
    )


def trainer_of(
    model: torch.nn.Module,
    tokenizer: Processor,
    recipe: Recipe,
    rows: Dataset | ImageRows,
    validation: Dataset | ImageRows | None,
    checkpoints: Path,
    loss: Loss,
) -> RowTrainer:
    """Build the Trainer without the callbacks of a whole training.

    Raises InputError as `fit` does.
    """
    stopping = recipe.train.early_stopping
    if stopping is not None and not validation:
        raise InputError(
            "train.early_stopping: there is no validation set; set data.split.validation, for example to 0.1"
        )
    if recipe.train.gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise InputError(f"train.gradient_checkpointing: {recipe.model} does not support it; leave it out")
    sampler, target = LengthSampler(recipe.train.batch_size, lengths_of(rows), recipe.seed), target_of(recipe)
    with accelerate_precision(precision_for(recipe.train.precision)):
        arguments = training_arguments(recipe, checkpoints, validate=validation is not None)
        if isinstance(rows, ImageRows):
            rows.epoch = lambda: sampler.epoch
            # Trainer derives these two from the signature of `forward`, which a PEFT wrapper hides.
            arguments.remove_unused_columns, arguments.label_names = False, ["labels"]
        trainer = RowTrainer(
            sampler=sampler,
            loss=loss,
            validation_loss=target.loss(),
            model=model,
            args=arguments,
            train_dataset=rows,
            # Sorted by length for less padding; the metrics do not depend on the order.
            eval_dataset=_by_length(validation),
            data_collator=collated if isinstance(tokenizer, ImageProcessor) else DataCollatorWithPadding(tokenizer),
            compute_metrics=partial(validation_metrics, target) if validation else None,
        )
    trainer.remove_callback(PrinterCallback)
    if stopping is not None:
        trainer.add_callback(EarlyStoppingCallback(stopping.patience, stopping.min_delta))
    return trainer


def validation_metrics(target: TrainingTarget, prediction: EvalPrediction) -> dict[str, float]:
    """Compute every metric of the validation set from Trainer's predictions."""
    return target.validate(np.asarray(prediction.predictions, dtype=np.float64), np.asarray(prediction.label_ids))


def _by_length(rows: Dataset | ImageRows | None) -> Dataset | ImageRows | None:
    return rows.select(np.argsort(lengths_of(rows))) if isinstance(rows, Dataset) else rows


def _mean_loss(history: list[dict[str, float]]) -> float:
    """Average the loss over all steps.

    Each entry of the curve is a mean since the entry before.
    """
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    starts = [0, *(step for step, _ in losses)]
    total = sum(loss * (step - start) for start, (step, loss) in zip(starts, losses, strict=False))
    return float(total / losses[-1][0])
