"""What the recipe's `train` means in the words of transformers' Trainer."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from bentune.bundle.errors import InputError
from training.pipeline.workers import place
from training.recipe.recipe import Recipe
from training.tasks.registry import target_of
from training.tasks.targets.target import higher_is_better
from training.train.fit.deepspeed import configuration
from training.train.fit.precision import precision_for

LOGGING_STEPS = 10


def training_arguments(recipe: Recipe, checkpoints: Path, *, validate: bool) -> TrainingArguments:
    """Trainer's arguments; checkpoints go to `checkpoints`, and with `validate` the best of them is kept.

    Raises InputError when the hardware does not have the precision that is asked for, or the rows of a step do not
    divide by the processes.
    """
    train = recipe.train
    precision = precision_for(train.precision)
    rows = rows_at_once(recipe, place().world)
    best_by = target_of(recipe).best_by(train)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=train.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=train.schedule,
        lr_scheduler_kwargs=_schedule_options(recipe),
        per_device_train_batch_size=rows,
        per_device_eval_batch_size=rows,
        gradient_accumulation_steps=train.accumulation,
        warmup_ratio=train.warmup_ratio,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        gradient_checkpointing=train.gradient_checkpointing,
        # The other kind gives adapters on a frozen base no gradient.
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        seed=recipe.seed,
        # DeepSpeed finds out by itself, and accelerate forgets about it where it is told.
        use_cpu=recipe.train.deepspeed is None and not torch.cuda.is_available(),
        ddp_backend="gloo" if place().world > 1 and not torch.cuda.is_available() else None,
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="steps" if validate else "no",
        eval_steps=train.checkpoint_steps if validate else None,
        save_strategy="steps",
        save_steps=train.checkpoint_steps,
        save_total_limit=2,
        load_best_model_at_end=validate,
        metric_for_best_model=best_by if validate else None,
        greater_is_better=higher_is_better(best_by) if validate else None,
        restore_callback_states_from_checkpoint=True,  # else early stopping would count from nothing
        logging_steps=LOGGING_STEPS,
        logging_nan_inf_filter=False,  # it would put the mean of the losses before in the place of a NaN
        deepspeed=configuration(recipe),
        report_to=[],
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process drives one GPU; for more, start one process each
    if arguments.device.type == "cpu":
        # Of several processes accelerate calls it cpu:0, onto which torch.load puts no optimizer of a checkpoint.
        arguments.__dict__["_setup_devices"] = torch.device("cpu")
    return arguments


def rows_at_once(recipe: Recipe, processes: int) -> int:
    """Of the rows of a step, how many one process computes at once. Raises InputError when they do not divide."""
    train = recipe.train
    if train.batch_size % (processes * train.accumulation):
        parts = f" of {train.accumulation} parts" if train.accumulation > 1 else ""
        raise InputError(
            f"train.batch_size: {train.batch_size} rows a step do not divide by {processes} processes{parts}; give a "
            f"multiple of {processes * train.accumulation}"
        )
    return train.batch_size // (processes * train.accumulation)


def steps_per_epoch(recipe: Recipe, rows: int) -> int:
    """Optimizer steps in which each of `rows` training rows is seen once."""
    return math.ceil(rows / recipe.train.batch_size)


def total_steps(recipe: Recipe, rows: int) -> int:
    """Optimizer steps of the whole training, as Trainer counts them, unless it stops early."""
    return math.ceil(steps_per_epoch(recipe, rows) * recipe.train.epochs)


def evaluation_steps(recipe: Recipe, rows: int) -> int:
    """Optimizer steps from one scoring of the validation rows to the next."""
    match recipe.train.evaluate:
        case "checkpoint":
            return recipe.train.checkpoint_steps
        case "epoch":
            return steps_per_epoch(recipe, rows)
        case steps:
            return steps


def _schedule_options(recipe: Recipe) -> dict[str, Any]:
    match recipe.train.schedule:
        case "cosine_with_restarts":
            return {"num_cycles": recipe.train.schedule_cycles}
        case "polynomial":
            # Its end is 1e-7 by default, and it refuses a peak that is not above it.
            return {"power": recipe.train.schedule_power, "lr_end": 0.0}
        case _:
            return {}
