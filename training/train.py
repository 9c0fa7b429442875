"""Stage `train`: fine-tunes the base model on the training rows and saves the adapter or the model."""

import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
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
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from service.contract import write_json
from service.errors import BentuneError
from training.base import base_digest, load_base, load_tokenizer, quiet
from training.methods import BASE, count, prepare, save_tuned
from training.parent import open_parent, weights_of
from training.recipe import Recipe
from training.rows import Rows, read_rows
from training.stage import Context, Summary
from training.tuned import labels_of

CHECKPOINTS = "checkpoints"
LOGGING_STEPS = 10
CURVE = ("step", "epoch", "learning_rate", "loss", "eval_loss", "eval_accuracy")


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


class _Sampler(LengthGroupedSampler):
    """Rows of like length in a batch, the batches in an order that follows from the seed and the epoch alone.

    The one of transformers draws from the global generator, so that a resumed epoch would have another order: some of
    its rows would be seen twice, others never. And it gives the batches from long to short: with labels that go with
    the length, as stars do, the end of each epoch would see few of them.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.batch = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        order = list(super().__iter__())
        whole = len(order) // self.batch
        for number in torch.randperm(whole, generator=self.generator).tolist():
            yield from order[number * self.batch : (number + 1) * self.batch]
        yield from order[whole * self.batch :]


class _Trainer(Trainer):
    """Draws the training rows with `sampler`."""

    def __init__(self, *, sampler: _Sampler, **options: Any) -> None:
        super().__init__(**options)
        self.sampler = sampler

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> _Sampler:  # noqa: ARG002
        return self.sampler


def run(context: Context) -> Summary:
    """Write adapter/ or model/, tokenizer/, labels.json and base.json.

    A run that was interrupted goes on from its last whole checkpoint in the same directory, and ends with the weights
    that it would have had. Raises BentuneError when the loss is no longer a number.
    """
    quiet()
    recipe, work, data = context.recipe, context.work, context.inputs["data"]
    labels = labels_of(data)
    start = _start(recipe, data.parents[2])
    tokenizer = load_tokenizer(start)
    tokenizer.save_pretrained(work / "tokenizer")  # before it is used, which would leave its mark
    base = load_base(start, labels)
    digest = base_digest(start, base.model)
    warm = {"warm_start": start.model} if recipe.warm else {}
    write_json(work / BASE, {"source": recipe.model, "sha256": digest} | warm)
    model = prepare(base, recipe.method)
    parameters = count(model)
    context.report.say(
        f"{recipe.method.name}: {parameters.trainable:,} of {parameters.total:,} weights are trained "
        f"({parameters.trainable / parameters.total:.1%})"
    )
    rows = _dataset(read_rows(data / "train.parquet"), tokenizer, recipe.max_tokens)
    validation = None
    if (data / "validation.parquet").is_file():
        validation = _dataset(read_rows(data / "validation.parquet"), tokenizer, recipe.max_tokens)
    arguments = _arguments(recipe, work, validate=validation is not None)
    trainer = _Trainer(
        sampler=_Sampler(arguments.train_batch_size, _lengths(rows), recipe.seed),
        model=model,
        args=arguments,
        train_dataset=rows,
        # In the order of their lengths, for the same reason; the metrics do not depend on it.
        eval_dataset=validation.select(np.argsort(_lengths(validation))) if validation else None,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_accuracy if validation else None,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_whole_checkpoint(work / CHECKPOINTS)
    resumed_at = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if checkpoint:
        context.report.say(f"going on from step {resumed_at}")
    steps = math.ceil(math.ceil(len(rows) / arguments.train_batch_size) * recipe.train.epochs)
    with context.report.task("training", steps) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        advance(resumed_at)
        trainer.add_callback(_Watch(advance, resumed_at, validate=validation is not None))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    history = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    if not _finite(history) or not all(torch.isfinite(weight).all() for weight in model.parameters()):
        shutil.rmtree(work / CHECKPOINTS)  # there is nothing in them to go on from
        raise BentuneError(
            f"the training loss is no longer a number at step {trainer.state.global_step}: lower train.learning_rate "
            f"(it is {recipe.learning_rate:g})"
        )
    save_tuned(model, recipe.method, work)
    write_json(work / "labels.json", labels)
    shutil.rmtree(work / CHECKPOINTS)
    return {
        "base": recipe.parent if recipe.warm else recipe.model,
        "base_sha256": digest,
        "parameters": asdict(parameters),
        "learning_rate": recipe.learning_rate,
        "steps": trainer.state.global_step,
        "resumed_at_step": resumed_at,
        "loss": _mean_loss(history),
        "curve": [{key: entry[key] for key in CURVE if key in entry} for entry in history],
    }


def _start(recipe: Recipe, runs: Path) -> Recipe:
    """The recipe with the model that training starts from: its own, or what the parent's run left."""
    if not recipe.warm or recipe.parent is None:
        return recipe
    weights = weights_of(open_parent(recipe.parent), recipe.model, runs)
    return recipe.model_copy(update={"model": str(weights.resolve())})


def worth_keeping(work: Path) -> set[str]:
    """After a failure: the checkpoints, if one is whole, for the next run goes on from it."""
    return {CHECKPOINTS} if last_whole_checkpoint(work / CHECKPOINTS) else set()


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
        logging_steps=LOGGING_STEPS,
        logging_nan_inf_filter=False,  # it would put the mean of the losses before in the place of a NaN
        report_to=[],
        disable_tqdm=True,
    )


def _dataset(rows: Rows, tokenizer: Any, max_tokens: int) -> Dataset:
    return Dataset.from_dict({**rows.encode(tokenizer, max_tokens), "labels": rows.labels.tolist()})


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
