"""Quality of one label a row: metrics by another library, tests on the rows where just one model is right."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, log_loss

from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.verdict import CompareSettings
from bentune.quality.one_label import OneLabelQuality, Proportions
from bentune.quality.statistics.noninferiority import interval, p_value, paired_loss, rows_needed

TARGET, QUALITY = OneLabel(labels=["a", "b", "c"]), OneLabelQuality()


def test_the_metrics_of_a_comparison_are_scikit_learns_and_the_first_decides() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 200)
    new, old = rng.dirichlet([1, 1, 1], 200), rng.dirichlet([2, 1, 1], 200)
    metrics = QUALITY.compared(TARGET.logits(new), TARGET.logits(old), gold, TARGET, CompareSettings(resamples=100))
    assert [one.name for one in metrics] == ["accuracy", "macro F1", "log loss", "calibration error"]
    found = {one.name: one for one in metrics}
    for scores, side in ((new, "candidate"), (old, "served")):
        predicted = scores.argmax(axis=1)
        assert getattr(found["accuracy"], side) == pytest.approx(accuracy_score(gold, predicted))
        assert getattr(found["macro F1"], side) == pytest.approx(f1_score(gold, predicted, average="macro"))
        assert getattr(found["log loss"], side) == pytest.approx(log_loss(gold, scores), rel=1e-5)
    for one in found.values():
        assert one.difference.value == pytest.approx(one.candidate - one.served)
        assert one.difference.low <= one.difference.value <= one.difference.high
    assert [one.higher_is_better for one in metrics] == [True, True, False, False]


def test_what_is_compared_is_measured() -> None:
    rng = np.random.default_rng(1)
    logits, gold = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 3, 50)
    report = QUALITY.measure(logits, gold, TARGET, resamples=10)
    assert isinstance(report, QUALITY.report)
    assert {*report.tiles, *report.hub, *report.shares} <= {*report.metrics, "micro_f1"}
    assert report.metrics["accuracy"].value == QUALITY.right(logits, gold, TARGET).mean()
    change = QUALITY.paired(logits, logits, gold, TARGET, resamples=10, confidence=0.95, seed=0)
    assert isinstance(change, QUALITY.paired_report)
    assert {name: one.value for name, one in change.metrics.items()} == {"accuracy": 0, "macro_f1": 0, "log_loss": 0}


def test_the_surest_wrong_answer_is_the_worst() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    found = QUALITY.wrong(TARGET.logits(scores), np.array([1, 0, 2]), TARGET)
    assert found.wrong.tolist() == [True, True, False]
    assert found.severity == pytest.approx([0.7, 0.8, 0.5], rel=1e-5)
    assert found.confidence is found.severity
    assert found.gold_score == pytest.approx([0.2, 0.1, 0.5], rel=1e-5)


def test_a_contest_counts_the_rows_where_just_one_is_right() -> None:
    gold = np.array([0, 0, 1, 1, 2])
    served, candidate = (np.eye(3, dtype=np.float32)[places] for places in ([0, 0, 0, 1, 1], [0, 1, 1, 1, 0]))
    contest = QUALITY.contest(candidate, served, gold, TARGET)
    assert (contest.rows, contest.gained, contest.lost) == (5, 1, 1)
    assert QUALITY.contest(served, served, gold, TARGET) == Proportions(0, 0, 5)
    loss = QUALITY.loss(served, candidate, gold, TARGET)
    assert (loss.value, loss.low, loss.high) == pytest.approx(paired_loss(1, 1, 5))


def test_a_variant_that_loses_rows_loses_points() -> None:
    gold = np.zeros(200, dtype=np.int64)
    right = np.tile(np.array([1, 0, 0], dtype=np.float32), (200, 1))
    wrong = right.copy()
    wrong[:4] = [0, 1, 0]
    loss = QUALITY.loss(right, wrong, gold, TARGET)
    assert (loss.value, loss.low, loss.high) == pytest.approx(paired_loss(4, 0, 200))
    assert loss.value == 2


def test_the_tests_of_a_contest_are_those_of_paired_proportions() -> None:
    contest, alpha = Proportions(gained=3, lost=12, rows=500), 0.05
    difference = contest.difference(alpha)
    assert (difference.value, difference.low, difference.high) == interval(3, 12, 500, alpha)
    assert contest.test().p_value == pytest.approx(stats.binomtest(3, 15, 0.5).pvalue)
    assert contest.worse() == pytest.approx(stats.binomtest(12, 15, 0.5, alternative="greater").pvalue)
    assert contest.inferior(0.01) == p_value(3, 12, 500, 0.01)
    asked = {"margin": 0.01, "alpha": alpha, "power": 0.8}
    assert contest.rows_needed(**asked) == rows_needed(3, 12, 500, **asked)


def test_every_row_is_in_the_group_of_its_label_and_no_group_is_empty() -> None:
    gold = np.array([0, 2, 2, 0])
    assert [(by, value, mask.tolist()) for by, value, mask in QUALITY.groups(gold, TARGET)] == [
        ("label", "a", [True, False, False, True]),
        ("label", "c", [False, True, True, False]),
    ]
