"""Warnings from the learning curves: over-fitted, too short, too timid, or none."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from training.pipeline.results import CurvePoint
from training.train.curves import curve_warnings


def curve(training: list[float], validation: list[float]) -> list[CurvePoint]:
    """A point of each every ten steps."""
    points: list[CurvePoint] = []
    for number in range(max(len(training), len(validation))):
        step = 10 * (number + 1)
        points += [CurvePoint(step=step, epoch=1, loss=training[number])] if number < len(training) else []
        points += [CurvePoint(step=step, epoch=1, eval_loss=validation[number])] if number < len(validation) else []
    return points


def test_a_validation_loss_that_rises_while_the_training_loss_falls_is_over_fitting() -> None:
    assert curve_warnings(curve([1.0, 0.6, 0.3, 0.1], [0.9, 0.7, 0.75, 0.9]), best_step=20) == [
        "The validation loss rose at each of the last 2 evaluations, from 0.7 at step 20 to 0.9 at step 40, while the "
        "training loss fell to 0.1: the model is over-fitted; the weights that were kept are those of step 20. Fewer "
        "epochs (the validation loss was lowest at step 20), train.early_stopping, more rows or a smaller method would "
        "help."
    ]


def test_a_last_evaluation_far_above_the_lowest_and_the_training_loss_is_over_fitting() -> None:
    (said,) = curve_warnings(curve([1.0, 0.5, 0.2, 0.1], [0.9, 0.5, 0.8, 0.7]), best_step=40)
    assert said.startswith(
        "The validation loss was lowest at step 20 (0.5) and ended at 0.7, the training loss at 0.1:"
    )
    assert "those of step 40" in said


def test_a_validation_loss_that_still_falls_asks_for_more_epochs() -> None:
    (said,) = curve_warnings(curve([1.0, 0.8, 0.6], [0.95, 0.8, 0.6]), best_step=30)
    assert said == (
        "The validation loss still fell when training ended, from 0.8 to 0.6 at step 30: more epochs would probably "
        "make a better model."
    )


def test_a_training_loss_that_does_not_fall_has_learned_nothing() -> None:
    (said,) = curve_warnings(curve([1.1, 1.08, 1.09, 1.07], []))
    assert said.startswith("The training loss hardly fell, from 1.1 to 1.07: the model has not learned the rows.")


def test_curves_that_look_right_say_nothing() -> None:
    assert curve_warnings(curve([1.0, 0.6, 0.5], [0.8, 0.62, 0.61])) == []
    assert curve_warnings(curve([1.0, 0.5], [])) == []
    # One evaluation that is a little worse is chance, and so is a rise of a hundredth.
    assert curve_warnings(curve([1.0, 0.6, 0.55], [0.8, 0.6, 0.62])) == []
    assert curve_warnings(curve([1.0, 0.6, 0.55, 0.5], [0.8, 0.6, 0.601, 0.603])) == []
    # Where the training loss rises as well the rows are only harder.
    assert curve_warnings(curve([1.0, 0.5, 0.6, 0.7], [0.8, 0.6, 0.65, 0.7])) == []


losses = st.lists(st.floats(0.01, 5), max_size=8)


@given(losses, losses)
def test_any_curve_is_read(training: list[float], validation: list[float]) -> None:
    said = curve_warnings(curve(training, validation))
    assert all(sentence.endswith(".") for sentence in said)
    if len(validation) > 1 and all(one > other for one, other in pairwise(validation)):
        assert not any("over-fitted" in sentence for sentence in said)


@given(st.lists(st.floats(1.05, 2), min_size=2, max_size=6), st.integers(2, 4))
def test_a_long_enough_rise_is_always_said(factors: list[float], falls: int) -> None:
    validation = [1.0 - 0.1 * number for number in range(falls)]
    for factor in factors:
        validation.append(validation[-1] * factor)
    training = [1.0 / (number + 1) for number in range(len(validation))]
    (said,) = [one for one in curve_warnings(curve(training, validation)) if "over-fitted" in one]
    assert f"at each of the last {len(factors)} evaluations" in said
