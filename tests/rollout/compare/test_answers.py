"""What changed between two models' answers: metrics by another library, flips by hand."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from bentune.bundle.scores import probabilities
from bentune.bundle.verdict import CompareSettings
from bentune.quality.labelled import Labelled
from rollout.compare.answers import flips_of, log_probabilities, metrics_of

LABELS = ["a", "b", "c"]


def rows_of(gold: list[int]) -> Labelled:
    numbers = [10 + n for n in range(len(gold))]
    return Labelled(Path("x"), [(str(n), None) for n in numbers], np.array(gold), numbers, [b""] * len(gold), {})


def test_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 200)
    new, old = rng.dirichlet([1, 1, 1], 200), rng.dirichlet([2, 1, 1], 200)
    found = {one.name: one for one in metrics_of(new, old, gold, LABELS, CompareSettings(resamples=100))}
    for scores, side in ((new, "candidate"), (old, "served")):
        predicted = scores.argmax(axis=1)
        assert getattr(found["accuracy"], side) == pytest.approx(accuracy_score(gold, predicted))
        assert getattr(found["macro F1"], side) == pytest.approx(f1_score(gold, predicted, average="macro"))
        assert getattr(found["log loss"], side) == pytest.approx(log_loss(gold, scores), rel=1e-5)
    for one in found.values():
        assert one.difference.value == pytest.approx(one.candidate - one.served)
        assert one.difference.low <= one.difference.value <= one.difference.high
    assert [one.higher_is_better for one in found.values()] == [True, True, False, False]


def test_log_probabilities_are_finite_and_turn_back() -> None:
    scores = np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    assert np.isfinite(log_probabilities(scores)).all()
    np.testing.assert_allclose(probabilities(log_probabilities(scores)), scores, atol=1e-6)


def test_flips_each_way_the_surest_first() -> None:
    gold = [0, 0, 0, 1, 1, 2]
    old = np.array([[0.6, 0.4, 0], [0.7, 0.3, 0], [0.8, 0.2, 0], [0.9, 0.1, 0], [0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])
    new = np.array([[0.1, 0.9, 0], [0.05, 0.95, 0], [0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    found = flips_of(rows_of(gold), new, old, LABELS, most=1)
    assert (found.lost, found.gained, found.both_wrong) == (2, 1, 1)
    (lost,) = found.lost_examples
    assert (lost.row, lost.label, lost.candidate, lost.served) == (11, "a", "b", "a")
    assert (lost.candidate_confidence, lost.served_confidence) == (0.95, 0.7)
    assert [one.row for one in found.gained_examples] == [13]
    assert flips_of(rows_of(gold), new, old, LABELS, most=0).lost_examples == []
