"""Metrics against scikit-learn, against numbers worked out by hand, and intervals against known truth."""

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from pydantic import ValidationError
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    mean_absolute_error,
    precision_recall_fscore_support,
    roc_auc_score,
)

from bentune.bundle.errors import InputError
from bentune.quality import classification as quality
from bentune.quality.classification import Classification, PairedDifference
from bentune.quality.statistics import bootstrap
from bentune.quality.statistics.bootstrap import Interval

Logits = npt.NDArray[np.float32]
Gold = npt.NDArray[np.int64]


def names(count: int) -> list[str]:
    return [f"label-{index}" for index in range(count)]


def sample(seed: int, rows: int, labels: int, scale: float = 2.0, drop: int = 0) -> tuple[Logits, Gold]:
    """Draw random logits and gold labels; gold lacks the last `drop` labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(scale=scale, size=(rows, labels)).astype(np.float32), rng.integers(0, labels - drop, size=rows)


def predicting(predicted: Gold, labels: int) -> Logits:
    """Build logits of a model that is sure of these predictions."""
    return (4 * np.eye(labels, dtype=np.float32))[predicted]


def width(interval: Interval) -> float:
    return interval.high - interval.low


def intervals(result: Classification) -> list[Interval]:
    of_classes = [i for c in result.per_class.values() for i in (c.precision, c.recall, c.f1)]
    areas = [i for i in (result.roc_auc, *(c.roc_auc for c in result.per_class.values())) if i is not None]
    errors = [result.log_loss, result.brier, result.calibration.error, result.mean_absolute_error]
    assert None not in errors
    return [result.accuracy, result.macro_f1, result.micro_f1, result.mcc, *areas, *of_classes, *filter(None, errors)]


@examples(40)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 60),
    labels=st.integers(2, 6),
    drop=st.integers(0, 1),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    confidence=st.sampled_from([0.01, 0.5, 0.95]),
)
def test_values_are_those_of_scikit_learn(
    seed: int, rows: int, labels: int, drop: int, scale: float, confidence: float
) -> None:
    logits, gold = sample(seed, rows, labels, scale, drop)
    ranks = np.random.default_rng(seed).permutation(labels)
    result = quality.classification(logits, gold, names(labels), ranks=ranks, resamples=20, confidence=confidence)

    every, predicted = list(range(labels)), logits.argmax(axis=1)
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    close: dict[str, Any] = {"rel": 1e-9, "abs": 1e-12}
    assert result.rows == rows
    assert result.accuracy.value == pytest.approx(accuracy_score(gold, predicted), **close)
    macro_f1 = f1_score(gold, predicted, labels=every, average="macro", zero_division=0)
    assert result.macro_f1.value == pytest.approx(macro_f1, **close)
    assert result.log_loss.value == pytest.approx(log_loss(gold, probabilities, labels=every), **close)
    micro_f1 = f1_score(gold, predicted, labels=every, average="micro", zero_division=0)
    assert result.micro_f1.value == pytest.approx(micro_f1, **close)
    assert result.mcc.value == pytest.approx(matthews_corrcoef(gold, predicted), **close)
    truth = np.eye(labels)[gold]
    brier = brier_score_loss(truth, probabilities, scale_by_half=labels == 2)
    assert result.brier.value == pytest.approx(brier, **close)
    assert result.mean_absolute_error is not None
    assert result.mean_absolute_error.value == pytest.approx(mean_absolute_error(ranks[gold], ranks[predicted]))
    # With two labels the second's column stands for both: rounding makes ties of probabilities near 1 in the first.
    columns = every if labels > 2 else [1, 1]
    areas = [
        roc_auc_score(truth[:, label], probabilities[:, label]) if 0 < truth[:, label].mean() < 1 else None
        for label in columns
    ]
    for found, area in zip(result.per_class.values(), areas, strict=True):
        assert (found.roc_auc is None) == (area is None)
        if found.roc_auc is not None:
            assert found.roc_auc.value == pytest.approx(area, **close)
    if None not in areas:
        whole = probabilities if labels > 2 else probabilities[:, 1]
        assert result.roc_auc is not None
        assert result.roc_auc.value == pytest.approx(roc_auc_score(gold, whole, multi_class="ovr"), **close)
    expected = precision_recall_fscore_support(gold, predicted, labels=every, zero_division=0)
    for of_class, precision, recall, f1, support in zip(result.per_class.values(), *expected, strict=True):
        assert of_class.precision.value == pytest.approx(precision, **close)
        assert of_class.recall.value == pytest.approx(recall, **close)
        assert of_class.f1.value == pytest.approx(f1, **close)
        assert of_class.support == support
    assert result.confusion == confusion_matrix(gold, predicted, labels=every).tolist()
    assert all(interval.low <= interval.value <= interval.high for interval in intervals(result))


def test_a_case_by_hand() -> None:
    # Gold a a b b, predicted a b b b; c is in the label map only.
    logits = np.log(np.array([[8, 1, 1], [2, 6, 2], [1, 8, 1], [1, 8, 1]], dtype=np.float32) / 10)
    result = quality.classification(logits, np.array([0, 0, 1, 1]), ["a", "b", "c"])
    assert result.confusion == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert result.labels == list(result.per_class) == ["a", "b", "c"]
    assert result.accuracy.value == 0.75
    a, b, c = result.per_class.values()
    found = [[m.precision.value, m.recall.value, m.f1.value, m.support] for m in (a, b)]
    assert np.allclose(found, [[1, 1 / 2, 2 / 3, 2], [2 / 3, 1, 4 / 5, 2]])
    assert c == quality.ClassMetrics(
        precision=Interval(value=0, low=0, high=0),
        recall=Interval(value=0, low=0, high=0),
        f1=Interval(value=0, low=0, high=0),
        roc_auc=None,
        support=0,
    )
    assert result.macro_f1.value == pytest.approx((2 / 3 + 0.8) / 3)
    assert result.log_loss.value == pytest.approx(-(3 * np.log(0.8) + np.log(0.2)) / 4)


def test_log_loss_is_clipped_as_scikit_learn_clips_it() -> None:
    epsilon = np.finfo(np.float64).eps
    for gold, expected in ((0, -np.log1p(-epsilon)), (1, -np.log(epsilon))):
        logits = np.array([[1000, -1000]], dtype=np.float32)
        found = quality.classification(logits, np.array([gold]), names(2)).log_loss.value
        assert found == pytest.approx(expected, rel=1e-9, abs=0)


def test_an_interval_is_the_spread_of_data_sets_drawn_from_the_rows() -> None:
    """Other code computes the same statistics, resample by resample.

    Both have the same percentiles up to chance.
    """
    logits, gold = sample(3, 300, 3)
    result = quality.classification(logits, gold, names(3), resamples=4000)
    predicted = logits.argmax(axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = -np.log(probabilities[np.arange(300), gold])

    picked = np.random.default_rng(99).integers(0, 300, size=(4000, 300))
    macro_f1 = [
        f1_score(gold[rows], predicted[rows], labels=[0, 1, 2], average="macro", zero_division=0)
        for rows in picked[:600]
    ]
    for interval, spread, tolerance in (
        (result.log_loss, losses[picked].mean(axis=1), 0.04),
        (result.accuracy, (predicted == gold)[picked].mean(axis=1), 0.04),
        (result.macro_f1, macro_f1, 0.08),
    ):
        expected = np.quantile(spread, [0.025, 0.975])
        assert [interval.low, interval.high] == pytest.approx(expected, abs=tolerance * width(interval))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    data_sets, covered = 200, 0
    for seed in range(data_sets):
        gold = rng.integers(0, 2, size=200)
        predicted = np.where(rng.random(200) < 0.8, gold, 1 - gold)
        accuracy = quality.classification(predicting(predicted, 2), gold, names(2), resamples=400, seed=seed).accuracy
        covered += accuracy.low <= 0.8 <= accuracy.high
    assert 0.88 <= covered / data_sets <= 1


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    logits, gold = sample(5, 200, 3)
    widths = [
        width(quality.classification(logits, gold, names(3), confidence=confidence).accuracy)
        for confidence in (0.5, 0.8, 0.95, 0.99)
    ]
    assert widths == sorted(set(widths))


def test_rare_labels_that_were_not_drawn_do_not_pull_macro_f1_down() -> None:
    gold = np.arange(30) // 2
    result = quality.classification(predicting(gold, 16), gold, names(16))
    # The label without gold rows counts as 0 in the value, and so it does in each resample.
    assert result.macro_f1.model_dump() == pytest.approx(dict.fromkeys(("value", "low", "high"), 15 / 16))


def test_paired_values_are_after_minus_before() -> None:
    before, gold = sample(1, 80, 4)
    after, _ = sample(2, 80, 4)
    one, two = (quality.classification(logits, gold, names(4)) for logits in (before, after))
    difference = quality.paired(before, after, gold)
    for name in ("accuracy", "macro_f1", "log_loss"):
        interval = getattr(difference, name)
        assert interval.value == pytest.approx(getattr(two, name).value - getattr(one, name).value)
        assert interval.low <= interval.value <= interval.high
    back = quality.paired(after, before, gold)
    assert back.accuracy.value == -difference.accuracy.value
    assert (back.accuracy.low, back.accuracy.high) == pytest.approx(
        (-difference.accuracy.high, -difference.accuracy.low)
    )


def test_a_model_does_not_differ_from_itself() -> None:
    logits, gold = sample(1, 50, 3)
    nothing = Interval(value=0, low=0, high=0)
    expected = PairedDifference(accuracy=nothing, macro_f1=nothing, log_loss=nothing)
    assert quality.paired(logits, logits, gold) == expected


def test_pairing_narrows_the_interval_of_models_that_err_alike() -> None:
    rng = np.random.default_rng(11)
    gold = rng.integers(0, 3, size=600)
    before = (2 * np.eye(3)[gold] + rng.normal(scale=2, size=(600, 3))).astype(np.float32)
    after = (before + 0.3 * np.eye(3)[gold] + rng.normal(scale=0.3, size=(600, 3))).astype(np.float32)
    one, two = (quality.classification(logits, gold, names(3), seed=s) for s, logits in enumerate((before, after)))
    difference = quality.paired(before, after, gold)
    for name in ("accuracy", "macro_f1", "log_loss"):
        unpaired = np.hypot(width(getattr(one, name)), width(getattr(two, name)))
        assert width(getattr(difference, name)) < 0.6 * unpaired
    # So much that it shows an improvement which the two intervals, overlapping, do not.
    assert one.accuracy.high > two.accuracy.low
    assert difference.accuracy.low > 0
    assert difference.log_loss.high < 0


def test_the_seed_decides() -> None:
    logits, gold = sample(8, 150, 3)
    first = quality.classification(logits, gold, names(3), seed=4)
    assert quality.classification(logits, gold, names(3), seed=4) == first
    other = quality.classification(logits, gold, names(3), seed=5)
    assert other.log_loss.value == first.log_loss.value
    assert other.log_loss.low != first.log_loss.low
    after, _ = sample(9, 150, 3)
    assert quality.paired(logits, after, gold, seed=4) == quality.paired(logits, after, gold, seed=4)


@pytest.mark.parametrize("block", [1, 7, 37, 370, 1001])
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    (logits, gold), (after, _) = sample(6, 37, 4), sample(7, 37, 4)
    one = quality.classification(logits, gold, names(4), resamples=50)
    one_paired = quality.paired(logits, after, gold, resamples=50)
    monkeypatch.setattr(bootstrap, "_DRAWS_PER_BLOCK", block)
    many = quality.classification(logits, gold, names(4), resamples=50)
    many_paired = quality.paired(logits, after, gold, resamples=50)
    # A sum of losses is rounded otherwise when a block ends inside it; counts are exact.
    exact = {"log_loss"}
    assert many.model_dump(exclude=exact | {"brier", "calibration"}) == one.model_dump(
        exclude=exact | {"brier", "calibration"}
    )
    assert many.brier.model_dump() == pytest.approx(one.brier.model_dump())
    assert many.calibration.error.model_dump() == pytest.approx(one.calibration.error.model_dump())
    assert many_paired.model_dump(exclude=exact) == one_paired.model_dump(exclude=exact)
    assert many.log_loss.model_dump() == pytest.approx(one.log_loss.model_dump())
    assert many_paired.log_loss.model_dump() == pytest.approx(one_paired.log_loss.model_dump())


def test_memory_does_not_grow_with_the_draws() -> None:
    logits, gold = sample(1, 200, 2)
    tracemalloc.start()
    try:
        quality.classification(logits, gold, names(2), resamples=40_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # An index and a loss for each of the 8 million draws would be 128 MB.
    assert peak < 50e6


def test_results_are_frozen_and_survive_json() -> None:
    logits, gold = sample(2, 40, 3)
    result = quality.classification(logits, gold, names(3), resamples=50, confidence=0.9, seed=3)
    assert Classification.model_validate_json(result.model_dump_json()) == result
    assert (result.confidence, result.resamples, result.seed) == (0.9, 50, 3)
    difference = quality.paired(logits, -logits, gold, resamples=50)
    assert PairedDifference.model_validate_json(difference.model_dump_json()) == difference
    with pytest.raises(ValidationError):
        result.rows = 5  # type: ignore[misc]


def test_other_integer_and_float_types_give_the_same() -> None:
    # So many labels that a cell of the confusion matrix is over 255.
    logits, gold = sample(2, 40, 20)
    expected = quality.classification(logits, gold, names(20), resamples=50)
    wide: Any = logits.astype(np.float64)
    narrow: Any = gold.astype(np.uint8)
    assert quality.classification(wide, narrow, names(20), resamples=50) == expected


@pytest.mark.parametrize(
    ("logits", "gold", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "no rows"),
        (np.zeros((2, 2)), np.zeros(3, int), "2 rows, but the shape of the gold labels is (3,)"),
        (np.zeros((2, 2)), np.zeros((2, 1), int), "the gold labels is (2, 1)"),
        (np.zeros(2), np.zeros(2, int), "their shape is (2,)"),
        (np.zeros((2, 1)), np.zeros(2, int), "at least 2 labels"),
        (np.array([[0, 1], [np.nan, 0], [0, np.inf]]), np.zeros(3, int), "not finite in 2 of 3 rows, first in row 1"),
        (np.zeros((2, 2)), np.array([0, 2]), "gold label 2 of row 1 is not an index into the 2 labels"),
        (np.zeros((2, 2)), np.array([-100, 0]), "gold label -100 of row 0"),
        (np.zeros((2, 2), int), np.zeros(2, int), "must be floating point, but are int64"),
        (np.zeros((2, 2)), np.zeros(2), "must be integers, but are float64"),
    ],
)
def test_wrong_rows_are_refused(logits: Any, gold: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        quality.classification(logits, gold, names(2))
    assert message in str(caught.value)
    with pytest.raises(InputError) as caught:
        quality.paired(logits, logits, gold)
    assert message in str(caught.value)


def test_wrong_labels_are_refused() -> None:
    logits, gold = sample(1, 5, 3)
    with pytest.raises(InputError, match="2 labels are named, but the logits have 3 columns"):
        quality.classification(logits, gold, ["a", "b"])
    with pytest.raises(InputError, match=r"named once, but these are repeated: a$"):
        quality.classification(logits, gold, ["a", "b", "a"])
    with pytest.raises(InputError, match=r"before are \(5, 3\), but the logits after are \(5, 2\)"):
        quality.paired(logits, logits[:, :2], gold % 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"resamples": 0}, "resamples must be at least 1, but is 0"),
        ({"confidence": 0.0}, "confidence must be between 0 and 1, but is 0.0"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, but is 1.0"),
        ({"confidence": float("nan")}, "confidence must be between 0 and 1, but is nan"),
        ({"seed": -1}, "seed must not be negative, but is -1"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    logits, gold = sample(1, 5, 3)
    with pytest.raises(InputError) as caught:
        quality.classification(logits, gold, names(3), **setting)
    assert str(caught.value) == message
    with pytest.raises(InputError):
        quality.paired(logits, logits, gold, **setting)


def test_ranks_must_be_those_of_the_labels() -> None:
    logits, gold = sample(1, 5, 3)
    with pytest.raises(InputError, match=r"3 labels are named, but the shape of their ranks is \(2,\)"):
        quality.classification(logits, gold, names(3), ranks=np.arange(2))
    assert quality.classification(logits, gold, names(3), resamples=2).mean_absolute_error is None


def test_the_confusion_of_many_labels_is_left_out() -> None:
    most = quality.MOST_CONFUSED
    for labels, shown in ((most, most), (most + 1, 0)):
        logits, gold = sample(1, 50, labels)
        assert len(quality.classification(logits, gold, names(labels), resamples=1).confusion) == shown


def test_the_intervals_of_the_other_metrics_are_the_spread_too() -> None:
    logits, gold = sample(3, 300, 3)
    ranks = np.array([2, 0, 1])
    result = quality.classification(logits, gold, names(3), ranks=ranks, resamples=2000)
    predicted = logits.argmax(axis=1)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    picked = np.random.default_rng(99).integers(0, 300, size=(400, 300))

    def error(rows: Gold) -> float:
        confidence, right = probabilities[rows].max(axis=1), predicted[rows] == gold[rows]
        place = np.ceil(confidence * quality.BINS)
        gaps = [abs((confidence - right)[place == one].sum()) for one in np.unique(place)]
        return float(sum(gaps)) / len(rows)

    assert result.mean_absolute_error is not None
    assert result.roc_auc is not None
    for interval, spread in (
        (result.mcc, [matthews_corrcoef(gold[rows], predicted[rows]) for rows in picked]),
        (result.mean_absolute_error, [np.abs(ranks[gold[rows]] - ranks[predicted[rows]]).mean() for rows in picked]),
        (result.brier, [((np.eye(3)[gold[rows]] - probabilities[rows]) ** 2).sum(axis=1).mean() for rows in picked]),
        (result.calibration.error, [error(rows) for rows in picked]),
        # Not a bootstrap, but of the same width.
        (result.roc_auc, [roc_auc_score(gold[rows], probabilities[rows], multi_class="ovr") for rows in picked]),
    ):
        expected = np.quantile(spread, [0.025, 0.975])
        assert [interval.low, interval.high] == pytest.approx(expected, abs=0.12 * width(interval))
