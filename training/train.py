"""Stage `train`: fine-tunes the base model on the training rows and saves the adapter or the model."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from service.contract import write_json
from service.errors import BentuneError
from training.base import base_digest, load_base, load_tokenizer, quiet
from training.methods import count, prepare, save_tuned
from training.recipe import Recipe
from training.rows import Rows, read_rows
from training.stage import Context, Summary

CHECKPOINTS = "checkpoints"


class _Report(TrainerCallback):
    """Feeds the progress bar and keeps the loss curve."""

    def __init__(self, advance: Callable[[int], None], done: int) -> None:
        self.advance = advance
        self.done = done

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        self.advance(state.global_step - self.done)
        self.done = state.global_step


def run(context: Context) -> Summary:
    """Write adapter/ or model/, tokenizer/, and labels.json.

    A run that was interrupted goes on from its last whole checkpoint in the same directory.
    Raises BentuneError when the loss is no longer a number.
    """
    quiet()
    recipe, work = context.recipe, context.work
    labels: list[str] = json.loads((context.inputs["data"] / "labels.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(recipe)
    base = load_base(recipe, labels)
    digest = base_digest(recipe, base.model)
    model = prepare(base, recipe.method)
    parameters = count(model)
    context.report.say(
        f"{recipe.method.name}: {parameters.trainable:,} of {parameters.total:,} weights are trained "
        f"({parameters.trainable / parameters.total:.1%})"
    )
    rows = read_rows(context.inputs["data"] / "train.parquet")
    validation_file = context.inputs["data"] / "validation.parquet"
    validation = read_rows(validation_file) if validation_file.is_file() else None
    trainer = Trainer(
        model=model,
        args=_arguments(recipe, work, validate=validation is not None),
        train_dataset=_dataset(rows, tokenizer, recipe.max_tokens),
        eval_dataset=_dataset(validation, tokenizer, recipe.max_tokens) if validation else None,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_accuracy if validation else None,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_whole_checkpoint(work / CHECKPOINTS)
    resumed_at = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if checkpoint:
        context.report.say(f"going on from step {resumed_at}")
    steps = math.ceil(math.ceil(len(rows) / recipe.train.batch_size) * recipe.train.epochs)
    with context.report.task("training", steps) as advance:
        advance(resumed_at)
        trainer.add_callback(_Report(advance, resumed_at))
        outcome = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if not math.isfinite(outcome.training_loss):
        raise BentuneError(f"the training loss became {outcome.training_loss}: lower train.learning_rate")
    save_tuned(model, recipe.method, work)
    tokenizer.save_pretrained(work / "tokenizer")
    write_json(work / "labels.json", labels)
    shutil.rmtree(work / CHECKPOINTS)
    return {
        "base_sha256": digest,
        "parameters": asdict(parameters),
        "learning_rate": recipe.learning_rate,
        "steps": trainer.state.global_step,
        "resumed_at_step": resumed_at,
        "loss": outcome.training_loss,
        "curve": [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry],
    }


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


def _arguments(recipe: Recipe, work: Path, *, validate: bool) -> TrainingArguments:
    train = recipe.train
    return TrainingArguments(
        output_dir=str(work / CHECKPOINTS),
        num_train_epochs=train.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.batch_size,
        warmup_ratio=train.warmup_ratio,
        weight_decay=train.weight_decay,
        group_by_length=True,
        length_column_name="length",
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="steps" if validate else "no",
        eval_steps=train.checkpoint_steps if validate else None,
        save_strategy="steps",
        save_steps=train.checkpoint_steps,
        save_total_limit=2,
        load_best_model_at_end=validate,
        metric_for_best_model="accuracy" if validate else None,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
    )


def _dataset(rows: Rows, tokenizer: Any, max_tokens: int) -> Dataset:
    encoded = dict(rows.encode(tokenizer, max_tokens))
    lengths = [len(ids) for ids in encoded["input_ids"]]
    return Dataset.from_dict({**encoded, "labels": rows.labels.tolist(), "length": lengths})


def _accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}
