"""Quality of any number of labels a row: a row is right as a whole, and every decision counts for calibration."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.verdict import CompareSettings
from bentune.quality.many_labels import ManyLabelsQuality
from bentune.quality.one_label import OneLabelQuality, Proportions
from bentune.quality.registry import QUALITIES, quality_of
from bentune.quality.statistics.calibration import decision_reliability, ece

TARGET, QUALITY = ManyLabels(labels=["a", "b"]), ManyLabelsQuality()


def test_the_metrics_of_a_comparison_are_scikit_learns_and_the_first_decides() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 2, (200, 2))
    new, old = rng.random((200, 2)), rng.beta(2, 1, (200, 2))
    metrics = QUALITY.compared(TARGET.logits(new), TARGET.logits(old), gold, TARGET, CompareSettings(resamples=100))
    assert [one.name for one in metrics] == ["subset accuracy", "macro F1", "log loss", "calibration error"]
    found = {one.name: one for one in metrics}
    for scores, side in ((new, "candidate"), (old, "served")):
        predicted = (scores > 0.5).astype(int)
        assert getattr(found["subset accuracy"], side) == pytest.approx(accuracy_score(gold, predicted))
        assert getattr(found["macro F1"], side) == pytest.approx(f1_score(gold, predicted, average="macro"))
        assert getattr(found["log loss"], side) == pytest.approx(log_loss(gold.ravel(), scores.ravel()), rel=1e-5)
        calibration = ece(decision_reliability(scores, gold, CompareSettings().calibration_bins))
        assert getattr(found["calibration error"], side) == pytest.approx(calibration, abs=1e-6)
    for one in found.values():
        assert one.difference.value == pytest.approx(one.candidate - one.served)
        assert one.difference.low <= one.difference.value <= one.difference.high
    assert [one.higher_is_better for one in metrics] == [True, True, False, False]


def test_a_row_is_right_where_all_of_its_labels_are_and_none_too_many() -> None:
    gold = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    logits = np.array([[2, -1], [2, -1], [-1, -1], [1, 1]], dtype=np.float32)
    assert QUALITY.right(logits, gold, TARGET).tolist() == [True, False, True, False]
    assert QUALITY.contest(logits, -logits, gold, TARGET) == Proportions(2, 0, 4)


def test_the_surest_wrong_decision_of_a_row_says_how_bad_it_is() -> None:
    scores = np.array([[0.9, 0.6], [0.3, 0.6], [0.2, 0.55]])
    found = QUALITY.wrong(TARGET.logits(scores), np.array([[0, 0], [1, 1], [0, 1]]), TARGET)
    assert found.wrong.tolist() == [True, True, False]
    assert found.severity == pytest.approx([0.9, 0.7, 0.8], rel=1e-5)
    assert found.gold_score == pytest.approx([0.1, 0.3, 0.8], rel=1e-5)


def test_what_is_compared_is_measured() -> None:
    rng = np.random.default_rng(1)
    logits, gold = rng.normal(size=(50, 2)).astype(np.float32), rng.integers(0, 2, (50, 2))
    report = QUALITY.measure(logits, gold, TARGET, resamples=10)
    assert {"accuracy", "micro_f1", "hamming_loss", "average_precision"} <= report.metrics.keys()
    assert report.metrics["accuracy"].value == QUALITY.right(logits, gold, TARGET).mean()
    change = QUALITY.paired(logits, logits, gold, TARGET, resamples=10, confidence=0.95, seed=0)
    assert {name: one.value for name, one in change.metrics.items()} == {"accuracy": 0, "macro_f1": 0, "log_loss": 0}


def test_rows_are_in_the_group_of_each_label_and_those_without_in_one_of_their_own() -> None:
    gold = np.array([[1, 1], [0, 1], [0, 0]])
    assert [(by, value, mask.tolist()) for by, value, mask in QUALITY.groups(gold, TARGET)] == [
        ("label", "a", [True, False, False]),
        ("label", "b", [True, True, False]),
        ("label", "(none)", [False, False, True]),
    ]


def test_each_kind_of_target_has_its_quality() -> None:
    assert type(quality_of(TARGET)) is ManyLabelsQuality
    assert type(quality_of(OneLabel(labels=["a", "b"]))) is OneLabelQuality
    assert QUALITIES.keys() >= {"one_label", "many_labels"}
    assert quality_of(TARGET).words.note.startswith("a row is right if exactly its labels are predicted")
