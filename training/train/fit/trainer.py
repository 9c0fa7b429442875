"""transformers' Trainer with Bentune's order of rows and its own loss."""

import shutil
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from training.tasks.targets.losses import Loss
from training.train.fit import deepspeed
from training.train.fit import fsdp as sharding
from training.train.fit.sampler import LengthSampler, SharedBatches


class RowTrainer(Trainer):
    """Draws the training rows with `sampler` and minimizes `loss`, a mean over all rows of an optimizer step.

    `validation_loss` is that of validation rows, whatever is minimized.
    """

    def __init__(self, *, sampler: LengthSampler, loss: Loss, validation_loss: Loss, **options: Any) -> None:
        super().__init__(**options)
        self.sampler = sampler
        self.loss = loss
        self.validation_loss = validation_loss
        # Trainer then counts the rows of a step, so that one which is computed in unequal parts is a mean over rows.
        self.model_accepts_loss_kwargs = True

    def create_accelerator_and_postprocess(self) -> None:
        """Called by Trainer while it is made."""
        super().create_accelerator_and_postprocess()
        if sharding.asked_for():
            sharding.shard(self.accelerator.state)
            self.is_fsdp_enabled = True

    def _inner_training_loop(self, batch_size: Any = None, *args: Any, **options: Any) -> Any:  # noqa: ARG002
        """Called by Trainer, with the rows at once of the checkpoint: another number of processes computes others."""
        return super()._inner_training_loop(self.args.train_batch_size, *args, **options)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Called by Trainer for each checkpoint, in every process.

        Not its own, which with accelerate 1.15 has all processes write the same file at once, and would have the leader
        alone gather weights that are spread over all. Sharded weights are saved with the optimizer; here is only made
        the directory, by which each process tells whether the best checkpoint is there.
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
        """Called by Trainer: in training with the number of labels in the whole step, and without for eval_loss."""
        given = {name: values for name, values in inputs.items() if name != "labels"}
        outputs = model(**given)
        loss = (self.loss if model.training else self.validation_loss)(outputs.logits, inputs["labels"], given)
        if num_items_in_batch is not None:
            # Processes take the mean of their gradients, hence times their number.
            share = inputs["labels"].ne(-100).sum() / num_items_in_batch.flatten()[0]
            loss = loss * share * self.accelerator.num_processes
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def restore(self, checkpoint: Path) -> None:
        """Take the weights, the best if one is known, and the history of a training that ended at `checkpoint`."""
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
        """Called by Trainer; several processes share the batches of one."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        rows = self._remove_unused_columns(self.train_dataset, description="training")
        at_once = self.args.per_device_train_batch_size * self.args.world_size
        batches = SharedBatches(self.sampler, at_once, self.args.process_index, self.args.world_size)
        loader = DataLoader(
            rows, batch_sampler=batches, collate_fn=self.data_collator, pin_memory=self.args.dataloader_pin_memory
        )
        # Not to be divided again.
        return prepare_data_loader(
            loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True
        )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthSampler:  # noqa: ARG002
        return self.sampler


def state_of(checkpoint: Path) -> TrainerState:
    """How far a checkpoint is, and the curve up to it."""
    state: TrainerState = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    return state


def is_finished(checkpoint: Path, steps: int) -> bool:
    """Whether all `steps` were done at a checkpoint, or it was stopped there early."""
    state = state_of(checkpoint)
    callbacks: dict[str, Any] = state.stateful_callbacks  # type: ignore[assignment]  # as it was saved
    stopping = callbacks.get(EarlyStoppingCallback.__name__)
    if stopping is None:
        return state.global_step >= steps
    counted = stopping["attributes"]["early_stopping_patience_counter"]
    return state.global_step >= steps or bool(counted >= stopping["args"]["early_stopping_patience"])


def last_whole_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed.

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
    """The optimizer step that a checkpoint was written after."""
    return int(checkpoint.name.rpartition("-")[2])
