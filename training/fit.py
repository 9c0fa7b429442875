"""Fits a model to rows with transformers' Trainer: checkpoints, validation, progress, and going on where it stopped."""

import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from service.errors import BentuneError
from training.arguments import training_arguments
from training.loss import Loss, cross_entropy
from training.recipe import Recipe
from training.sampler import LengthSampler
from training.stage import Reporter

CURVE = ("step", "epoch", "learning_rate", "loss", "eval_loss", "eval_accuracy")


@dataclass(frozen=True, slots=True)
class Fitted:
    """How it went: the curve, an entry a logged or validated step, and the mean loss over all steps."""

    steps: int
    resumed_at: int
    loss: float
    curve: list[dict[str, float]]


class _Watch(TrainerCallback):
    """Feeds the progress bar, logs and evaluates where it matters, and stops when the loss is no longer a number."""

    def __init__(self, advance: Callable[[int], None], done: int, *, validate: bool) -> None:
        self.advance = advance
        self.done = done
        self.validate = validate

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self.advance(state.global_step - self.done)
        self.done = state.global_step
        last = state.global_step >= state.max_steps
        # A checkpoint ends a window of the loss, so that a run that goes on from it has the same curve.
        control.should_log = control.should_log or last or state.global_step % state.save_steps == 0
        control.should_evaluate = control.should_evaluate or (last and self.validate)

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        control.should_training_stop = control.should_training_stop or not _finite(state.log_history[-1:])


class _Trainer(Trainer):
    """Draws the training rows with `sampler` and minimizes `loss`."""

    def __init__(self, *, sampler: LengthSampler, loss: Loss, **options: Any) -> None:
        super().__init__(**options)
        self.sampler = sampler
        self.loss = loss
        # The loss is a mean over the batch: Trainer has to divide it by the number of batches that it accumulates.
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,  # noqa: ARG002
    ) -> Any:
        """Called by Trainer, in training and for eval_loss, which is plain cross-entropy whatever is minimized."""
        given = {name: values for name, values in inputs.items() if name != "labels"}
        outputs = model(**given)
        loss = (self.loss if model.training else cross_entropy)(outputs.logits, inputs["labels"], given)
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthSampler:  # noqa: ARG002
        return self.sampler


def fit(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    rows: Dataset,
    validation: Dataset | None,
    checkpoints: Path,
    report: Reporter,
    loss: Loss = cross_entropy,
    callbacks: Sequence[TrainerCallback] = (),
) -> Fitted:
    """Train `model` in place on tokenized rows with `labels`; the best checkpoint on `validation` is restored.

    `callbacks` watch: what they raise ends the training, and the checkpoints stay.
    Goes on from the last whole checkpoint in `checkpoints`; whoever has saved the model removes that directory. Raises
    BentuneError when the loss is no longer a number.
    """
    arguments = training_arguments(recipe, checkpoints, validate=validation is not None)
    trainer = _Trainer(
        sampler=LengthSampler(arguments.train_batch_size, _lengths(rows), recipe.seed),
        loss=loss,
        model=model,
        args=arguments,
        train_dataset=rows,
        # In the order of their lengths, for the same reason; the metrics do not depend on it.
        eval_dataset=validation.select(np.argsort(_lengths(validation))) if validation else None,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_accuracy if validation else None,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_whole_checkpoint(checkpoints)
    resumed_at = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if checkpoint:
        report.say(f"going on from step {resumed_at}")
    steps = math.ceil(math.ceil(len(rows) / arguments.train_batch_size) * recipe.train.epochs)
    with report.task("training", steps) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        advance(resumed_at)
        trainer.add_callback(_Watch(advance, resumed_at, validate=validation is not None))
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    if not _finite(history) or not all(torch.isfinite(weight).all() for weight in model.parameters()):
        shutil.rmtree(checkpoints)  # there is nothing in them to go on from
        raise BentuneError(
            f"the training loss is no longer a number at step {trainer.state.global_step}: lower train.learning_rate "
            f"(it is {recipe.learning_rate:g})"
        )
    return Fitted(
        steps=trainer.state.global_step,
        resumed_at=resumed_at,
        loss=_mean_loss(history),
        curve=[{key: entry[key] for key in CURVE if key in entry} for entry in history],
    )


def last_whole_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed.

    Trainer writes trainer_state.json last (transformers 4.57, Trainer._save_checkpoint).
    """
    found = sorted(directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
        else:
            return path
    return None


def _lengths(rows: Dataset) -> list[int]:
    return [len(ids) for ids in rows["input_ids"]]


def _accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def _finite(history: list[dict[str, float]]) -> bool:
    return all(math.isfinite(entry[key]) for entry in history for key in ("loss", "eval_loss") if key in entry)


def _mean_loss(history: list[dict[str, float]]) -> float:
    """Over every step: each entry of the curve is the mean since the one before it."""
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    starts = [0, *(step for step, _ in losses)]
    total = sum(loss * (step - start) for start, (step, loss) in zip(starts, losses, strict=False))
    return float(total / losses[-1][0])
