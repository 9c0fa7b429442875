"""Method `head`: tunes the head alone, on the features of the frozen model."""

import torch

from training.tasks.base.load import Base
from training.train.methods.partial import PartialTuning, train_only


class Head(PartialTuning):
    """Tuning of the head: linear probing where the head is one layer."""

    def prepare(self, base: Base) -> torch.nn.Module:
        """Freeze all but the head and other modules without pretrained weights."""
        return train_only(base, lambda name: False)  # noqa: ARG005
