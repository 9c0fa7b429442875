"""Calibration by hand, and an interval against known truth."""

import numpy as np
import pytest

from bentune.quality.statistics.calibration import (
    decision_ece_difference,
    decision_reliability,
    ece,
    ece_difference,
    reliability,
)


def scores_of(confidence: list[float]) -> np.ndarray:
    return np.array([[one, 1 - one] for one in confidence])


def test_reliability_and_error_by_hand() -> None:
    # Two rows in (0.6, 0.8], one right; one at the edge 0.8 belongs there too; one in (0.8, 1], right.
    table = reliability(scores_of([0.7, 0.7, 0.8, 1.0]), np.array([0, 1, 0, 0]), bins=5)
    assert [one.rows for one in table] == [0, 0, 0, 3, 1]
    assert table[3].confidence == pytest.approx(2.2 / 3)
    assert table[3].accuracy == pytest.approx(2 / 3)
    assert (table[0].confidence, table[0].accuracy) == (None, None)
    assert (table[4].low, table[4].high) == (pytest.approx(0.8), 1.0)
    assert ece(table) == pytest.approx(0.75 * (2.2 / 3 - 2 / 3))


def test_a_difference_is_of_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    gold = (rng.random(3000) > 0.8).astype(np.int64)  # label 0 in 80 %
    honest, boastful = scores_of([0.8] * 3000), scores_of([0.95] * 3000)
    found = ece_difference(boastful, honest, gold, bins=10, resamples=300, confidence=0.9, seed=1)
    assert found.low <= found.value <= found.high
    assert found.low > 0.1
    assert found.value == pytest.approx(0.15, abs=0.02)
    again = ece_difference(boastful, honest, gold, bins=10, resamples=300, confidence=0.9, seed=1)
    assert again == found


def test_the_same_answers_differ_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentune.quality.statistics.calibration._CELLS_PER_BLOCK", 40)  # many blocks
    scores, gold = scores_of([0.6, 0.7, 0.9, 0.9]), np.array([0, 1, 0, 0])
    found = ece_difference(scores, scores, gold, bins=10, resamples=100, confidence=0.9, seed=0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_with_many_labels_every_decision_counts_by_its_own_confidence() -> None:
    # Sure of 0.9, 0.6, 0.9 and 0.6; of the decisions the one for the second label of the first row is wrong.
    scores, gold = np.array([[0.9, 0.6], [0.1, 0.4]]), np.array([[1, 0], [0, 0]])
    table = decision_reliability(scores, gold, bins=5)
    assert [one.rows for one in table] == [0, 0, 2, 0, 2]
    assert (table[2].confidence, table[2].accuracy) == (pytest.approx(0.6), 0.5)
    assert (table[4].confidence, table[4].accuracy) == (pytest.approx(0.9), 1.0)
    assert ece(table) == pytest.approx(0.1)


def test_a_difference_of_decisions_is_of_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    gold = (rng.random((1500, 2)) < 0.8).astype(np.int64)
    honest, boastful = np.full((1500, 2), 0.8), np.full((1500, 2), 0.95)
    options = {"bins": 10, "resamples": 300, "confidence": 0.9, "seed": 1}
    found = decision_ece_difference(boastful, honest, gold, **options)
    assert 0.1 < found.low <= found.value <= found.high
    assert found.value == pytest.approx(
        ece(decision_reliability(boastful, gold, 10)) - ece(decision_reliability(honest, gold, 10))
    )
    same = decision_ece_difference(honest, honest, gold, **options)
    assert (same.value, same.low, same.high) == (0, 0, 0)
