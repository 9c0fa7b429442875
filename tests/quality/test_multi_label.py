"""Metrics of rows with any number of labels, against scikit-learn, and their intervals against other code."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    hamming_loss,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from bentune.bundle.errors import InputError
from bentune.bundle.targets.many_labels import sigmoid
from bentune.quality.multi_label import classification, paired


def sample(seed: int, rows: int, labels: int) -> tuple[Any, Any]:
    """Logits with ties, and gold."""
    rng = np.random.default_rng(seed)
    gold = (rng.random((rows, labels)) < 0.4).astype(np.int64)
    return np.round(rng.normal(-0.5 + gold, 1.5), 1).astype(np.float32), gold


@examples(30)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 40), labels=st.integers(2, 5))
def test_values_are_those_of_scikit_learn(seed: int, rows: int, labels: int) -> None:
    logits, gold = sample(seed, rows, labels)
    names = [f"label-{number}" for number in range(labels)]
    found, predicted = classification(logits, gold, names, resamples=20), (logits > 0).astype(int)
    scores = sigmoid(logits.astype(np.float64))
    assert found.accuracy.value == pytest.approx(accuracy_score(gold, predicted))
    assert found.hamming_loss is not None
    assert found.hamming_loss.value == pytest.approx(hamming_loss(gold, predicted))
    for average, metric in (("micro", found.micro_f1), ("macro", found.macro_f1)):
        assert metric.value == pytest.approx(f1_score(gold, predicted, average=average, zero_division=0))
    flat = gold.ravel(), scores.ravel()
    assert found.log_loss.value == pytest.approx(log_loss(*flat, labels=[0, 1]))
    assert found.brier.value == pytest.approx(brier_score_loss(*flat))
    there = gold.any(axis=0)
    if there.any():
        assert found.average_precision is not None
        assert found.average_precision.value == pytest.approx(
            average_precision_score(gold[:, there], scores[:, there], average="macro")
        )
    expected = precision_recall_fscore_support(gold, predicted, average=None, zero_division=0)
    for number, (one, *values) in enumerate(zip(found.per_class.values(), *expected, strict=True)):
        assert [one.precision.value, one.recall.value, one.f1.value, one.support] == pytest.approx(values)
        if one.roc_auc is not None:
            assert one.roc_auc.value == pytest.approx(roc_auc_score(gold[:, number], scores[:, number]))
        assert (one.average_precision is None) == (not gold[:, number].any())
    if all(one.roc_auc for one in found.per_class.values()):
        assert found.roc_auc is not None
        assert found.roc_auc.value == pytest.approx(roc_auc_score(gold, scores))
    assert (found.mcc, found.mean_absolute_error, found.confusion) == (None, None, [])


def test_calibration_is_that_of_every_decision_by_its_confidence() -> None:
    # Sure of 0.9, 0.9, 0.6 and 0.6; the decisions on `a` are right, of those on `b` one is.
    scores = np.array([[0.9, 0.6], [0.1, 0.4]])
    logits = np.log(scores / (1 - scores)).astype(np.float32)
    found = classification(logits, np.array([[1, 0], [0, 0]]), ["a", "b"], bins=5)
    filled = [(one.rows, round(one.confidence or 0, 6), one.accuracy) for one in found.calibration.bins if one.rows]
    assert filled == [(2, 0.6, 0.5), (2, 0.9, 1.0)]
    assert found.calibration.error.value == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)
    assert [one.calibration_error and one.calibration_error.value for one in found.per_class.values()] == [
        pytest.approx(0.1),
        pytest.approx(0.1),
    ]


def test_an_interval_is_the_spread_of_data_sets_drawn_from_the_rows() -> None:
    logits, gold = sample(3, 200, 3)
    found, predicted = classification(logits, gold, ["a", "b", "c"], resamples=2000), logits > 0
    picked = np.random.default_rng(9).integers(0, 200, size=(400, 200))
    assert found.hamming_loss is not None
    assert found.average_precision is not None
    for metric, spread in (
        (found.accuracy, [accuracy_score(gold[rows], predicted[rows]) for rows in picked]),
        (found.macro_f1, [f1_score(gold[rows], predicted[rows], average="macro") for rows in picked]),
        (found.micro_f1, [f1_score(gold[rows], predicted[rows], average="micro") for rows in picked]),
        (found.hamming_loss, [hamming_loss(gold[rows], predicted[rows]) for rows in picked]),
        (found.average_precision, [average_precision_score(gold[rows], logits[rows]) for rows in picked]),
    ):
        expected = np.quantile(spread, [0.025, 0.975])
        assert [metric.low, metric.high] == pytest.approx(expected, abs=0.12 * (metric.high - metric.low))


def test_a_difference_is_that_of_the_values_and_is_paired() -> None:
    before, gold = sample(1, 120, 3)
    after = before.copy()
    after[:20] = np.where(gold[:20], 2, -2)  # twenty rows become right
    names = ["a", "b", "c"]
    found, one, other = paired(before, after, gold), *(classification(x, gold, names) for x in (before, after))
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert getattr(found, name).value == pytest.approx(getattr(other, name).value - getattr(one, name).value)
    assert found.accuracy.low > 0
    same = paired(before, before, gold)
    assert (same.macro_f1.low, same.macro_f1.high) == (0, 0)


@pytest.mark.parametrize(
    ("logits", "gold", "words"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2), int), "alike"),
        (np.zeros((2, 2)), np.zeros((2, 3), int), "alike"),
        (np.zeros((2, 2)), np.zeros(2, int), "alike"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), int), "not finite"),
        (np.zeros((2, 2)), np.full((2, 2), 2), "0 or 1"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "2 labels are named"),
    ],
)
def test_what_does_not_fit_is_refused(logits: Any, gold: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        classification(logits.astype(np.float32), gold, ["a", "b"])
