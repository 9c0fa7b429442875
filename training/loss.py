"""What training minimizes, for each batch."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch.nn import functional


class Loss(Protocol):
    """The mean loss of a batch, a scalar."""

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """From logits, float [rows, labels], labels, int64 [rows], and what else the model was given."""


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG001
    """Cross-entropy in nats, every row alike."""
    return functional.cross_entropy(logits.float(), labels)
