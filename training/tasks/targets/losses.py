"""Losses that training minimizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional


class Loss(Protocol):
    """Mean loss of a batch, a scalar."""

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Compute the loss from logits, labels and the model's other inputs.

        Logits are float [rows, labels]. Labels are int64 [rows], for multi-label rows [rows, labels] with 1 for each
        label of a row.
        """


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG001
    """Return the mean cross-entropy in nats."""
    return functional.cross_entropy(logits.float(), labels)


def binary_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    inputs: Mapping[str, torch.Tensor],  # noqa: ARG001
) -> torch.Tensor:
    """Return the binary cross-entropy in nats, a mean over rows and labels."""
    return functional.binary_cross_entropy_with_logits(logits.float(), labels.float())


@dataclass(frozen=True, slots=True)
class WeightedCrossEntropy:
    """Cross-entropy in nats, with `weights` by label, float32 [labels], and label smoothing.

    Smoothing gives every label `smoothing` / labels of the target (Szegedy et al. 2016,
    https://arxiv.org/abs/1512.00567). The sum of the weighted losses is divided by the number of rows. torch's own mean
    divides by the sum of the weights: then a row's loss depends on its batch, and weights cancel in a batch of one row.
    """

    weights: torch.Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """Compute the mean loss of a batch."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        total = functional.cross_entropy(
            logits.float(), labels, weight=weights, label_smoothing=self.smoothing, reduction="sum"
        )
        return total / len(labels)


@dataclass(frozen=True, slots=True)
class WeightedBinaryCrossEntropy:
    """Binary cross-entropy in nats of multi-label rows, a mean over rows and labels.

    `weights`, float32 [labels], are the weights of a label's positive rows, torch's pos_weight. Smoothing changes the
    targets 0 and 1 to `smoothing` / 2 and 1 - `smoothing` / 2.
    """

    weights: torch.Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """Compute the mean loss of a batch."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        targets = labels.float() * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=weights)
