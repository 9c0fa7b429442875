"""The head alone is tuned, on what the frozen model says of a text."""

import torch

from training.tasks.base import Base
from training.train.methods.partial import Kept, train_only


class Head(Kept):
    """Also called linear probing, where the head is one layer."""

    def prepare(self, base: Base) -> torch.nn.Module:
        """The base with only its head to train, and what else its checkpoint had no weights for."""
        return train_only(base, lambda name: False)  # noqa: ARG005
