"""What training minimizes, for each batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional


class Loss(Protocol):
    """The mean loss of a batch, a scalar."""

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """From logits, float [rows, labels], labels, and what else the model was given.

        Labels are int64 [rows], or where rows have any number of them [rows, labels], 1 for each that a row has.
        """


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG001
    """Return the cross-entropy in nats, every row alike."""
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

    Smoothing gives every label `smoothing` / labels of the target (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567).
    The sum of the weighted losses is divided by the rows. torch's own mean divides it by the rows' weights: then a
    weight depends on its neighbours in the batch, and in a batch of one row there is none.
    """

    weights: torch.Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """The mean of the batch."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        total = functional.cross_entropy(
            logits.float(), labels, weight=weights, label_smoothing=self.smoothing, reduction="sum"
        )
        return total / len(labels)


@dataclass(frozen=True, slots=True)
class WeightedBinaryCrossEntropy:
    """Binary cross-entropy in nats of any number of labels, a mean over rows and labels.

    `weights`, float32 [labels], are those of having a label, torch's pos_weight. Smoothing draws both targets of a
    label together by `smoothing`: half of it is what remains of 0, and what 1 lacks.
    """

    weights: torch.Tensor | None = None
    smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ARG002
        """The mean of the batch."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        targets = labels.float() * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=weights)
