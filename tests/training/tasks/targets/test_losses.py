"""The loss: torch's own cross-entropy, weighted and smoothed, of which a row counts the same in any company."""

import math

import pytest
import torch
from torch.nn import functional

from training.tasks.targets.losses import (
    WeightedBinaryCrossEntropy,
    WeightedCrossEntropy,
    binary_cross_entropy,
    cross_entropy,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0], [1.0, 1.0, -2.0]])
LABELS = torch.tensor([0, 2, 1, 2])
WEIGHTS = torch.tensor([0.5, 3.0, 1.25])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_it_is_torchs_own(weights: torch.Tensor | None, smoothing: float) -> None:
    rows = functional.cross_entropy(LOGITS, LABELS, weight=weights, label_smoothing=smoothing, reduction="none")
    found = WeightedCrossEntropy(weights, smoothing)(LOGITS, LABELS, {})
    assert found.item() == pytest.approx(rows.mean().item(), rel=1e-6)


def test_smoothing_alone_is_torchs_mean() -> None:
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.2)
    assert WeightedCrossEntropy(None, 0.2)(LOGITS, LABELS, {}).item() == pytest.approx(expected.item(), rel=1e-6)
    assert expected.item() != pytest.approx(cross_entropy(LOGITS, LABELS, {}).item(), rel=1e-3)


def test_without_weights_and_smoothing_it_is_plain_cross_entropy() -> None:
    assert torch.equal(WeightedCrossEntropy()(LOGITS, LABELS, {}), cross_entropy(LOGITS, LABELS, {}))
    assert cross_entropy(torch.zeros(2, 4), torch.tensor([1, 3]), {}).item() == pytest.approx(math.log(4))


def test_a_rows_weight_does_not_depend_on_its_neighbours() -> None:
    """torch's mean would give a batch of one row the same loss whatever its weight."""
    loss = WeightedCrossEntropy(WEIGHTS)
    alone = [loss(LOGITS[row : row + 1], LABELS[row : row + 1], {}).item() for row in range(4)]
    assert sum(alone) / 4 == pytest.approx(loss(LOGITS, LABELS, {}).item(), rel=1e-6)
    plain = cross_entropy(LOGITS[2:3], LABELS[2:3], {}).item()
    assert alone[2] == pytest.approx(3 * plain, rel=1e-6)


def test_half_precision_is_summed_in_float32() -> None:
    assert WeightedCrossEntropy(WEIGHTS, 0.1)(LOGITS.bfloat16(), LABELS, {}).dtype == torch.float32


def test_of_any_number_of_labels_it_is_the_mean_over_rows_and_labels() -> None:
    marks = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    chances = 1 / (1 + torch.exp(-LOGITS))
    expected = -torch.where(marks > 0, chances, 1 - chances).log().mean()
    for loss in (binary_cross_entropy, WeightedBinaryCrossEntropy()):
        assert loss(LOGITS, marks, {}).item() == pytest.approx(expected.item(), rel=1e-6)


def test_weights_and_smoothing_of_any_number_of_labels() -> None:
    marks = torch.tensor([[1, 0, 1]])
    has, lacks = functional.softplus(-LOGITS[:1]), functional.softplus(LOGITS[:1])
    weighted = (torch.tensor([[0.5, 0, 1.25]]) * has + torch.tensor([[0, 1, 0]]) * lacks).mean()
    assert WeightedBinaryCrossEntropy(WEIGHTS)(LOGITS[:1], marks, {}).item() == pytest.approx(weighted.item(), rel=1e-6)
    targets = torch.tensor([[0.9, 0.1, 0.9]])
    smoothed = (targets * has + (1 - targets) * lacks).mean()
    found = WeightedBinaryCrossEntropy(None, 0.2)(LOGITS[:1], marks, {})
    assert found.item() == pytest.approx(smoothed.item(), rel=1e-6)
