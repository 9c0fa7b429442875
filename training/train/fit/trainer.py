"""transformers' Trainer with Bentune's row order, loss, progress and checkpoints."""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training.tasks.targets.losses import Loss
from training.train.fit import deepspeed, fsdp
from training.train.fit.sampler import LengthSampler, SharedBatches


class RowTrainer(Trainer):
    """Trainer that draws rows with `sampler` and minimizes `loss`, a mean over all rows of an optimizer step.

    `validation_loss` is the loss of validation rows, which may differ from `loss`.
    """

    def __init__(self, *, sampler: LengthSampler, loss: Loss, validation_loss: Loss, **options: Any) -> None:
        super().__init__(**options)
        self.sampler = sampler
        self.loss = loss
        self.validation_loss = validation_loss
        # Trainer then counts the rows of a step, so that the loss is a mean over rows even where accumulation steps
        # have unequal batches.
        self.model_accepts_loss_kwargs = True

    def create_accelerator_and_postprocess(self) -> None:
        """Enable FSDP where it was requested; Trainer's constructor calls this."""
        super().create_accelerator_and_postprocess()
        if fsdp.fsdp_requested():
            fsdp.shard(self.accelerator.state)
            self.is_fsdp_enabled = True

    def _inner_training_loop(self, batch_size: Any = None, *args: Any, **options: Any) -> Any:  # noqa: ARG002
        """Replace the checkpoint's batch size, which depends on its number of processes."""
        return super()._inner_training_loop(self.args.train_batch_size, *args, **options)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a checkpoint's weights; Trainer calls this in every process.

        With accelerate 1.15, Trainer's own method would write the same file from all processes at once, and gather
        sharded weights in rank 0 alone. Sharded weights are saved with the optimizer; only their directory is made
        here, because each process searches for it to find the best checkpoint.
        """
        if not self.args.should_save:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            Path(str(output_dir or self.args.output_dir)).mkdir(parents=True, exist_ok=True)
        else:
            self._save(output_dir)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Compute the loss of one batch.

        `num_items_in_batch` counts the labels of the whole step. Trainer leaves it out for eval_loss, which ignores
        weights and smoothing.
        """
        given = {name: values for name, values in inputs.items() if name != "labels"}
        outputs = model(**given)
        loss = (self.loss if model.training else self.validation_loss)(outputs.logits, inputs["labels"], given)
        if num_items_in_batch is not None:
            # Gradients are averaged over the processes, so the loss is multiplied by their number.
            share = inputs["labels"].ne(-100).sum() / num_items_in_batch.flatten()[0]
            loss = loss * share * self.accelerator.num_processes
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def restore(self, checkpoint: Path) -> None:
        """Load the best weights and the history of a training that ended at `checkpoint`."""
        self.state = state_of(checkpoint)
        if self.state.best_global_step:
            checkpoint = checkpoint.parent / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(checkpoint)
        if self.is_deepspeed_enabled:
            deepspeed.load(cast("torch.nn.Module", self.model), checkpoint)
        elif self.state.best_global_step:
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))

    def get_train_dataloader(self) -> Any:
        """Build the loader of training batches; several processes share each batch."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        rows = self._remove_unused_columns(self.train_dataset, description="training")
        at_once = self.args.per_device_train_batch_size * self.args.world_size
        batches = SharedBatches(self.sampler, at_once, self.args.process_index, self.args.world_size)
        loader = DataLoader(
            rows, batch_sampler=batches, collate_fn=self.data_collator, pin_memory=self.args.dataloader_pin_memory
        )
        # SharedBatches has divided the batches already.
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthSampler:  # noqa: ARG002
        return self.sampler


def state_of(checkpoint: Path) -> TrainerState:
    """Read Trainer's state at a checkpoint: its step and the curve up to it."""
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return state


def is_finished(checkpoint: Path, steps: int) -> bool:
    """Return True when training ended at a checkpoint.

    Training ends after `steps` steps or by early stopping.
    """
    state = state_of(checkpoint)
    callbacks: dict[str, Any] = state.stateful_callbacks  # type: ignore[assignment]  # as read from the file
    stopping = callbacks.get(EarlyStoppingCallback.__name__)
    if stopping is None:
        return state.global_step >= steps
    counted = stopping["attributes"]["early_stopping_patience_counter"]
    return state.global_step >= steps or bool(counted >= stopping["args"]["early_stopping_patience"])


def last_whole_checkpoint(directory: Path) -> Path | None:
    """Find the newest complete checkpoint, and remove incomplete ones.

    Trainer writes trainer_state.json last (transformers 4.57, Trainer._save_checkpoint).
    """
    found = sorted(directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: -step_of(path))
    for path in found:
        try:
            state_of(path)
        except (OSError, ValueError, TypeError):
            shutil.rmtree(path)
        else:
            return path
    return None


def step_of(checkpoint: Path) -> int:
    """Parse the optimizer step from a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


class ProgressCallback(TrainerCallback):
    """Progress bar, schedule of evaluations and checkpoints, and stop of a training whose loss is not a number.

    `evaluate_every` is the number of steps between evaluations on the validation set; the last step is evaluated too.
    Each evaluation writes a checkpoint, so that the best one can be restored.
    """

    def __init__(self, advance: Callable[[int], None], done: int, evaluate_every: int | None) -> None:
        self.advance = advance
        self.done = done
        self.evaluate_every = evaluate_every

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Advance the bar and schedule evaluation, checkpoint and curve point where due.

        Trainer calls this after its own callback, which schedules checkpoints only.
        """
        self.advance(state.global_step - self.done)
        self.done = state.global_step
        last = state.global_step >= state.max_steps
        every = self.evaluate_every
        control.should_evaluate = every is not None and (last or state.global_step % every == 0)
        control.should_save = control.should_save or control.should_evaluate
        # A checkpoint ends a window of the loss, so that a run resumed from it has the same curve.
        control.should_log = control.should_log or last or control.should_save

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Stop training when the newest point of the curve is no longer a number."""
        control.should_training_stop = control.should_training_stop or not finite(state.log_history[-1:])


def finite(history: Sequence[dict[str, float]]) -> bool:
    """Return True when every loss in Trainer's history is a finite number."""
    return all(math.isfinite(entry[key]) for entry in history for key in ("loss", "eval_loss") if key in entry)
