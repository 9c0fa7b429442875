"""Warnings about learning curves: over-fitting, too little training, too low a learning rate."""

from collections.abc import Sequence

from training.pipeline.results import CurvePoint

RISING = 2  # consecutive evaluations: a single rise may be chance
RISE = 0.02
FALL = 0.05
GAP = 0.5


def curve_warnings(curve: Sequence[CurvePoint], best_step: int | None = None) -> list[str]:
    """List the problems that the curves show, one text each; empty without any.

    `best_step` is the step whose weights were kept.

    A model is over-fitted when the validation loss rose at each of the last evaluations, in total by more than 2 %,
    while the training loss fell (Prechelt 1998, "Early stopping - but when?", criterion UP). It is also over-fitted
    when the validation loss ends more than 50 % above the training loss and more than 2 % above its own minimum.
    Training was too short when the validation loss still fell by more than 5 % at the last evaluation. The learning
    rate was too low when the training loss never fell by 5 %.
    """
    training = [(point.step, point.loss) for point in curve if point.loss is not None]
    validation = [(point.step, point.eval_loss) for point in curve if point.eval_loss is not None]
    found = []
    if (rose := _over_fitted(training, validation)) is not None:
        kept = (
            f"the weights that were kept are those of step {best_step}" if best_step else "the last weights were kept"
        )
        found.append(f"{rose}: the model is over-fitted; {kept}. {_remedy(validation)}")
    elif len(validation) > 1 and validation[-1][1] < (1 - FALL) * validation[-2][1] and _is_lowest_last(validation):
        found.append(
            f"The validation loss still fell when training ended, from {validation[-2][1]:.3g} to "
            f"{validation[-1][1]:.3g} at step {validation[-1][0]}: more epochs would probably make a better model."
        )
    if len(training) > 2 and min(loss for _, loss in training) > (1 - FALL) * training[0][1]:
        found.append(
            f"The training loss hardly fell, from {training[0][1]:.3g} to {min(loss for _, loss in training):.3g}: the "
            "model has not learned the rows. Try a higher train.learning_rate, more epochs, or look at the labels."
        )
    return found


def _over_fitted(training: list[tuple[int, float]], validation: list[tuple[int, float]]) -> str | None:
    if len(validation) < 2 or not training:
        return None
    lowest_at, lowest = min(validation, key=lambda point: point[1])
    last_at, last = validation[-1]
    trend = _rising(validation)
    before = [loss for step, loss in training if step <= validation[-1 - trend][0]]
    fell = bool(before) and training[-1][1] < before[-1]
    if trend >= RISING and last > (1 + RISE) * validation[-1 - trend][1] and fell:
        return (
            f"The validation loss rose at each of the last {trend} evaluations, from {validation[-1 - trend][1]:.3g} "
            f"at step {validation[-1 - trend][0]} to {last:.3g} at step {last_at}, while the training loss fell to "
            f"{training[-1][1]:.3g}"
        )
    if last > (1 + RISE) * lowest and last > (1 + GAP) * training[-1][1] and lowest_at != last_at:
        return (
            f"The validation loss was lowest at step {lowest_at} ({lowest:.3g}) and ended at {last:.3g}, the training "
            f"loss at {training[-1][1]:.3g}"
        )
    return None


def _rising(validation: list[tuple[int, float]]) -> int:
    """Count the consecutive evaluations, up to the last, at which the loss rose."""
    losses = [loss for _, loss in validation]
    count = 0
    while count + 1 < len(losses) and losses[-1 - count] > losses[-2 - count]:
        count += 1
    return count


def _is_lowest_last(validation: list[tuple[int, float]]) -> bool:
    return validation[-1][1] == min(loss for _, loss in validation)


def _remedy(validation: list[tuple[int, float]]) -> str:
    lowest_at = min(validation, key=lambda point: point[1])[0]
    return (
        f"Fewer epochs (the validation loss was lowest at step {lowest_at}), train.early_stopping, more rows or a "
        "smaller method would help."
    )
