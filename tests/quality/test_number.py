"""Metrics of regressions are scipy's and scikit-learn's, and the paired tests are as careful as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scipy.stats import spearmanr, ttest_rel
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from bentune.bundle.errors import InputError
from bentune.bundle.targets.number import Number
from bentune.quality.number import METRICS, Errors, NumberQuality, NumberReport
from bentune.quality.registry import quality_of

TARGET = Number(labels=["stars"], center=3.0, scale=1.5)
QUALITY = NumberQuality()


def rows(count: int, noise: float, seed: int = 0, steps: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Outputs, and numbers of which many are the same."""
    rng = np.random.default_rng(seed)
    gold = np.round(rng.normal(3, 1.5, count) / steps) * steps
    return TARGET.logits((gold + rng.normal(0, noise, count))[:, None]), gold


def test_it_is_the_quality_of_a_number() -> None:
    assert isinstance(quality_of(TARGET), NumberQuality)


@given(st.integers(4, 60), st.floats(0.1, 3), st.integers(0, 99))
def test_point_values_are_the_libraries(count: int, noise: float, seed: int) -> None:
    logits, gold = rows(count, noise, seed)
    answers = TARGET.answers(logits.astype(np.float64))
    found = QUALITY.measure(logits, gold, TARGET, resamples=20, seed=seed, bins=10)
    assert isinstance(found, NumberReport)
    assert found.mean_absolute_error.value == pytest.approx(mean_absolute_error(gold, answers))
    assert found.root_mean_squared_error.value == pytest.approx(root_mean_squared_error(gold, answers))
    if len(set(gold.tolist())) > 1:
        assert found.r2.value == pytest.approx(r2_score(gold, answers))
        assert found.spearman.value == pytest.approx(spearmanr(answers, gold).statistic)
        assert QUALITY.score(logits, gold, TARGET) == pytest.approx(found.r2.value)
    for one in found.metrics.values():
        assert one.low <= one.value <= one.high


def test_resamples_have_the_metrics_of_the_rows_that_they_draw() -> None:
    logits, gold = rows(30, 1.0)
    answers = TARGET.answers(logits.astype(np.float64))
    times = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=8).astype(np.float64)
    for sample, drawn in enumerate(times):
        picked = np.repeat(np.arange(30), drawn.astype(int))
        expected = {
            "mean_absolute_error": mean_absolute_error(gold[picked], answers[picked]),
            "root_mean_squared_error": root_mean_squared_error(gold[picked], answers[picked]),
            "spearman": spearmanr(answers[picked], gold[picked]).statistic,
            "r2": r2_score(gold[picked], answers[picked]),
        }
        found = {name: float(metric(answers, gold, times)[sample]) for name, metric in METRICS.items()}
        assert found == pytest.approx(expected)


def test_numbers_that_are_all_the_same_have_no_correlation_and_explain_nothing() -> None:
    logits, gold = TARGET.logits(np.linspace(1, 5, 9)[:, None]), np.full(9, 3.0)
    found = QUALITY.measure(logits, gold, TARGET, resamples=10)
    assert (found.metrics["spearman"].value, found.metrics["r2"].value) == (0.0, 0.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    truth = np.sqrt(2 / np.pi)  # of |normal noise|
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        gold = rng.normal(3, 1.5, 80)
        found = QUALITY.measure(TARGET.logits((gold + rng.normal(0, 1, 80))[:, None]), gold, TARGET, resamples=200)
        mae = found.metrics["mean_absolute_error"]
        inside += mae.low <= truth <= mae.high
    assert 0.88 <= inside / 200 <= 0.99


def test_the_change_is_that_of_the_same_rows() -> None:
    before, gold = rows(60, 1.5)
    after, _ = rows(60, 0.5)
    found = QUALITY.paired(before, after, gold, TARGET, resamples=200, confidence=0.95, seed=1).metrics
    one, other = (QUALITY.measure(logits, gold, TARGET, resamples=5).metrics for logits in (before, after))
    assert {name: value.value for name, value in found.items()} == pytest.approx(
        {name: other[name].value - one[name].value for name in METRICS}
    )
    assert found["mean_absolute_error"].high < 0 < found["spearman"].low


def test_a_contest_is_won_by_smaller_errors_and_its_test_is_scipys() -> None:
    candidate, gold = rows(80, 0.5, 1)
    served, _ = rows(80, 1.0, 1)
    contest = QUALITY.contest(candidate, served, gold, TARGET)
    errors = [np.abs(TARGET.answers(one.astype(np.float64)) - gold) for one in (candidate, served)]
    assert contest.difference(0.05).value == pytest.approx(1 - errors[0].mean() / errors[1].mean())
    assert contest.difference(0.05).low > 0
    assert contest.gained > contest.lost
    assert contest.test().p_value == pytest.approx(ttest_rel(*errors).pvalue, rel=1e-6)
    assert contest.worse() > 0.99
    assert contest.inferior(0.01) < 0.01


def test_a_model_that_lost_the_margin_seldom_passes_and_an_equal_one_does_with_the_rows_asked_for() -> None:
    """At most one in twenty of 2,000 models that lost the margin may be promoted.

    The errors of these models are larger by the margin.
    """
    rng = np.random.default_rng(4)
    passed = 0
    for _ in range(2000):
        served = np.abs(rng.normal(0, 1, 100))
        passed += Errors(served * 1.1 * rng.lognormal(-0.02, 0.2, 100), served, 1.5).inferior(0.1) <= 0.05
    assert passed / 2000 <= 0.065
    served = np.abs(rng.normal(0, 1, 400))
    needed = Errors(served * rng.lognormal(-0.045, 0.3, 400), served, 1.5).rows_needed(
        margin=0.05, alpha=0.05, power=0.8
    )
    promoted = 0
    for _ in range(300):
        served = np.abs(rng.normal(0, 1, needed))
        promoted += Errors(served * rng.lognormal(-0.045, 0.3, needed), served, 1.5).inferior(0.05) <= 0.05
    assert 0.65 <= promoted / 300 <= 0.95


@examples(30)
@given(st.integers(1, 3), st.booleans())
def test_few_rows_and_equal_models_say_little(count: int, zero: bool) -> None:
    errors = np.zeros(count) if zero else np.ones(count)
    contest = Errors(errors, errors, 1.5)
    assert contest.difference(0.05).value == 0
    assert contest.worse() == 0.5
    assert (contest.gained, contest.lost) == (0, 0)


def test_the_loss_of_a_variant_is_in_percent_of_the_error() -> None:
    gold = np.linspace(1, 5, 50)
    sign = np.where(np.arange(50) % 2, 1.0, -1.0)
    reference, variant = (TARGET.logits((gold + sign * error)[:, None]) for error in (1.0, 1.02))
    lost = QUALITY.loss(reference, variant, gold, TARGET)
    assert lost.value == pytest.approx(2, abs=1e-3)
    assert lost.low <= lost.value <= lost.high


def test_wrong_answers_are_those_far_off_and_the_farthest_first() -> None:
    gold = np.array([1.0, 2.0, 3.0])
    logits = TARGET.logits(np.array([[1.1], [4.0], [3.8]]))
    assert QUALITY.right(logits, gold, TARGET).tolist() == [True, False, False]
    found = QUALITY.wrong(logits, gold, TARGET)
    assert found.severity.argsort()[::-1].tolist() == [1, 2, 0]
    assert found.confidence is None


def test_rows_are_grouped_in_quarters() -> None:
    gold = np.arange(1.0, 9.0)
    found = list(QUALITY.groups(gold, TARGET))
    assert [by for by, _, _ in found] == ["stars"] * 4
    assert sum(mask.sum() for _, _, mask in found) == 8


@pytest.mark.parametrize("bad", [np.zeros((3, 2), np.float32), np.full((3, 1), np.nan, np.float32), np.zeros((0, 1))])
def test_outputs_that_are_not_a_number_a_row_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(InputError):
        QUALITY.measure(bad, np.zeros(len(bad)), TARGET)
