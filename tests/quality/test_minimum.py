"""The minimum of a model: better than one constant answer, or the bounds of a recipe."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.number import Number
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.targets.target import Target
from bentune.quality.minimum import Minimum, best_possible, certain, minimum_in, minimum_of
from bentune.quality.registry import QUALITIES, quality_of

ONE = OneLabel(labels=["ham", "spam"])
MANY = ManyLabels(labels=["a", "b", "c"])
NUMBER = Number(labels=["stars"], center=3.0, scale=2.0)


def found(target: Target, answers: Any, gold: Any, **required: float) -> Minimum:
    quality, gold = quality_of(target), np.asarray(gold)
    logits = certain(np.asarray(answers), target)
    return minimum_of(quality, quality.measure(logits, gold, target, resamples=200), logits, gold, target, required)


def problem(target: Target, answers: Any, gold: Any, **required: float) -> str:
    return found(target, answers, gold, **required).problem(quality_of(target).words)


GOLD = [0] * 60 + [1] * 40
SETS = [[1, 0, 0]] * 50 + [[0, 1, 1]] * 30 + [[0, 0, 0]] * 20
STARS = [1.0] * 30 + [4.0] * 40 + [5.0] * 30


def test_the_constant_is_the_best_one() -> None:
    assert found(ONE, GOLD, GOLD).constant == "ham"
    assert found(MANY, SETS, SETS).constant == "a"
    assert found(NUMBER, STARS, STARS).constant == "4"


@pytest.mark.parametrize(
    ("target", "gold", "wrong", "always"),
    [
        (ONE, GOLD, [1 - label for label in GOLD], [0] * 100),
        (MANY, SETS, [[1 - one for one in row] for row in SETS], [[1, 0, 0]] * 100),
        (NUMBER, STARS, [6.0 - number for number in STARS], [4.0] * 100),
    ],
)
def test_a_model_that_ignores_its_input_or_permutes_its_labels_misses_it(
    target: Target, gold: Any, wrong: Any, always: Any
) -> None:
    assert problem(target, gold, gold) == ""
    for bad in (wrong, always):
        assert "is not shown to be better than a constant answer: against the constant answer" in problem(
            target, bad, gold
        )
    assert found(target, always, gold).gain.value == 0


def test_the_message_has_the_numbers() -> None:
    assert problem(ONE, [0] * 60 + [0] * 38 + [1] * 2, GOLD) == (
        "the model is not shown to be better than a constant answer: against the constant answer 'ham', accuracy "
        "changed by +2.0 points [-2.7, +7.7]; look at the labels, the rows and train.learning_rate, or set what is "
        "enough in evaluate.minimum, for rare labels a bound on macro_f1 or mcc"
    )


def test_the_worse_limit_of_the_interval_has_to_reach_a_bound() -> None:
    answers = [0] * 60 + [0] * 10 + [1] * 30
    lower = found(ONE, answers, GOLD, accuracy=0.8).bounds[0]
    assert lower.found is not None
    assert 0.8 < lower.found < 0.9
    assert lower.reached
    assert problem(ONE, answers, GOLD, accuracy=0.9).startswith(
        f"the model misses the minimum of its recipe: accuracy is only known to be {lower.found:.4g}, and "
        "evaluate.minimum is 0.9"
    )
    # 0.1 of the rows are wrong for certain: the upper limit of the loss counts, not its value.
    loss = quality_of(ONE).measure(certain(np.array(answers), ONE), np.array(GOLD), ONE, resamples=200).metrics
    value, high = loss["log_loss"].value, loss["log_loss"].high
    assert problem(ONE, answers, GOLD, log_loss=high) == ""
    assert "log_loss" in problem(ONE, answers, GOLD, log_loss=(value + high) / 2)


def test_bounds_replace_the_constant_and_all_count() -> None:
    always = [0] * 100
    assert problem(ONE, always, GOLD, accuracy=0.4) == ""
    assert "macro_f1" in problem(ONE, always, GOLD, accuracy=0.4, macro_f1=0.5)


def test_a_metric_that_the_test_set_does_not_define_is_not_reached() -> None:
    assert "roc_auc is not defined on the test set" in problem(ONE, [0] * 20, [0] * 20, roc_auc=0.5)


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_old_evidence_gives_the_same_from_the_recall_of_each_label(rows: list[tuple[int, int]]) -> None:
    target = OneLabel(labels=["a", "b", "c", "d"])
    gold, answers = (np.array(side) for side in zip(*rows, strict=True))
    report = quality_of(target).measure(certain(answers, target), gold, target, resamples=2)
    known = minimum_in({"tuned": report.model_dump(mode="json")})
    assert known is not None
    now = found(target, answers, gold)
    # Of two commonest labels either is the best constant; which one it is changes the rows that only one gets right.
    counts = np.bincount(gold, minlength=4)
    if (counts == counts.max()).sum() == 1:
        assert known == now
    assert known.gain.value == pytest.approx(now.gain.value)


@pytest.mark.parametrize("evidence", [{}, {"tuned": {}}, {"tuned": None}, {"minimum": 5}, {"minimum": None}, []])
def test_what_nobody_measured_is_no_minimum(evidence: Any) -> None:
    assert minimum_in(evidence) is None


def test_a_recorded_minimum_is_judged_by_its_numbers() -> None:
    bad = found(ONE, [0] * 100, GOLD)
    assert minimum_in({"minimum": bad.model_dump(mode="json") | {"reached": True}}) is None
    read = minimum_in({"minimum": bad.model_dump(mode="json")})
    assert read == bad
    assert not read.reached


@pytest.mark.parametrize(("rows", "enough"), [(4, False), (9, False), (10, True)])
def test_few_rows_show_nothing_even_without_an_error(rows: int, enough: bool) -> None:
    gold = np.array([0, 1] * rows)[:rows]
    assert best_possible(quality_of(ONE), gold, ONE, 0.95).reached is enough


@pytest.mark.parametrize(
    ("target", "gold", "options"),
    [(ONE, GOLD, {"ranks": np.array([0, 1])}), (MANY, SETS, {}), (NUMBER, STARS, {})],
)
def test_every_metric_of_a_report_has_a_direction(target: Target, gold: Any, options: dict[str, Any]) -> None:
    quality, gold = quality_of(target), np.array(gold)
    report = quality.measure(certain(gold, target), gold, target, resamples=2, **options)
    assert set(report.metrics) == set(quality.metrics)
    kind = type(report)
    assert set(quality.metrics) <= kind.higher_is_better | kind.lower_is_better
    assert not kind.higher_is_better & kind.lower_is_better
    assert QUALITIES[target.kind] is quality


def test_a_bound_that_the_constant_reaches_proves_nothing() -> None:
    always = [0] * 100
    assert found(ONE, always, GOLD, accuracy=0.4).proves_nothing
    assert not found(ONE, always, GOLD, macro_f1=0.6).proves_nothing
    assert not found(ONE, GOLD, GOLD, accuracy=0.4).proves_nothing
    assert found(NUMBER, [4.0] * 100, STARS, mean_absolute_error=3.0).proves_nothing
