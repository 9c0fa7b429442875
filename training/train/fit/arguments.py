"""Translation of a recipe's `train` section to transformers' TrainingArguments."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from bentune.bundle.errors import InputError
from bentune.bundle.hardware import isa_flags
from training.pipeline.workers import place
from training.recipe.recipe import Recipe
from training.recipe.train import Precision
from training.tasks.registry import target_of
from training.tasks.targets.target import higher_is_better
from training.train.fit.deepspeed import configuration

LOGGING_STEPS = 10
CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
PRECISION_VARIABLE = "ACCELERATE_MIXED_PRECISION"


def training_arguments(recipe: Recipe, checkpoints: Path, *, validate: bool) -> TrainingArguments:
    """Build Trainer's arguments.

    With `validate` the best checkpoint in `checkpoints` is kept. Raises InputError when the hardware lacks the
    requested precision, or when the batch size is not divisible by the number of processes.
    """
    train = recipe.train
    precision = precision_for(train.precision)
    batch_size = device_batch_size(recipe, place().world)
    best_by = target_of(recipe).best_by(train)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=train.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=train.schedule,
        lr_scheduler_kwargs=_schedule_options(recipe),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        gradient_accumulation_steps=train.accumulation,
        warmup_ratio=train.warmup_ratio,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        gradient_checkpointing=train.gradient_checkpointing,
        # Reentrant checkpointing gives adapters on a frozen base no gradient.
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        seed=recipe.seed,
        # DeepSpeed detects the device itself; where `use_cpu` is set, accelerate drops DeepSpeed.
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
        restore_callback_states_from_checkpoint=True,  # else early stopping counts from zero
        logging_steps=LOGGING_STEPS,
        logging_nan_inf_filter=False,  # the filter replaces a NaN by the mean of the losses before it
        deepspeed=configuration(recipe),
        report_to=[],
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process drives one GPU; several GPUs need a process each
    if arguments.device.type == "cpu":
        # With several processes accelerate names it cpu:0, and torch.load restores no optimizer onto that device.
        arguments.__dict__["_setup_devices"] = torch.device("cpu")
    return arguments


def device_batch_size(recipe: Recipe, processes: int) -> int:
    """Return the batch size of one forward pass in one process.

    Raises InputError when `train.batch_size` is not divisible by processes times gradient accumulation steps.
    """
    train = recipe.train
    if train.batch_size % (processes * train.accumulation):
        steps = f" times {train.accumulation} gradient accumulation steps" if train.accumulation > 1 else ""
        raise InputError(
            f"train.batch_size: {train.batch_size} is not divisible by {processes} processes{steps}; give a "
            f"multiple of {processes * train.accumulation}"
        )
    return train.batch_size // (processes * train.accumulation)


def steps_per_epoch(recipe: Recipe, rows: int) -> int:
    """Count the optimizer steps of one epoch over `rows` training rows."""
    return math.ceil(rows / recipe.train.batch_size)


def total_steps(recipe: Recipe, rows: int) -> int:
    """Count a training's optimizer steps as Trainer does, without early stopping."""
    return math.ceil(steps_per_epoch(recipe, rows) * recipe.train.epochs)


def evaluation_steps(recipe: Recipe, rows: int) -> int:
    """Count the optimizer steps between two evaluations on the validation set."""
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
            # The default end is 1e-7, and the schedule refuses a peak at or below its end.
            return {"power": recipe.train.schedule_power, "lr_end": 0.0}
        case _:
            return {}


def precision_for(asked: Precision | Literal["auto"]) -> Precision:
    """Choose the precision of training.

    bf16 and fp16 are mixed precision: weights and optimizer stay fp32. fp16 needs a GPU. A CPU without bf16
    instructions would emulate bf16 many times slower than fp32. Raises InputError when the hardware lacks the requested
    precision.
    """
    if torch.cuda.is_available():
        has = {"fp32", "fp16"} | ({"bf16"} if torch.cuda.is_bf16_supported(including_emulation=False) else set())
        place = torch.cuda.get_device_name()
    else:
        has = {"fp32"} | ({"bf16"} if CPU_BF16.intersection(isa_flags()) else set())
        place = "this CPU"
    if asked == "auto":
        return "bf16" if torch.cuda.is_available() and "bf16" in has else "fp32"
    if asked not in has:
        raise InputError(
            f"train.precision: {place} does not support {asked}, only {' and '.join(sorted(has))}: choose one of "
            "these, or auto"
        )
    return asked


@contextmanager
def accelerate_precision(precision: Precision) -> Iterator[None]:
    """Set accelerate's precision while a Trainer is constructed.

    transformers 4.57 sets the variable with each TrainingArguments and never resets it. Every later training in the
    process would compute in the first precision that is not fp32.
    """
    before = os.environ.get(PRECISION_VARIABLE)
    os.environ[PRECISION_VARIABLE] = "no" if precision == "fp32" else precision
    try:
        yield
    finally:
        if before is None:
            del os.environ[PRECISION_VARIABLE]
        else:
            os.environ[PRECISION_VARIABLE] = before
