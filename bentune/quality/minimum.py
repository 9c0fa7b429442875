"""Minimum quality of a model: the recipe's bounds, or better than one constant answer.

The constant is the best one for the test set: the commonest label, the commonest set of labels, or the median. So a
model that ignores its input never passes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from bentune.bundle.arrays import Gold, Logits
from bentune.bundle.files import Frozen
from bentune.bundle.targets.target import Target
from bentune.bundle.verdict import Difference
from bentune.quality.quality import Quality, Report, Words

HOW = (
    "look at the labels, the rows and train.learning_rate, or set what is enough in evaluate.minimum, for rare labels "
    "a bound on macro_f1 or mcc"
)


class Bound(Frozen):
    """Bound on one metric, and the limit of the metric's interval that has to reach it.

    `found` is the lower limit, or the upper one where less is better; None where the test set does not define the
    metric.
    """

    metric: str
    bound: float
    found: float | None
    reached: bool
    reached_by_constant: bool = False


class Minimum(Frozen):
    """Comparison of a model with one `constant` answer and with the `bounds` of a recipe.

    `gain` is how much better than the constant the model is, in the metric that decides: a share, with the limits of
    its interval. It counts where there are no bounds.
    """

    constant: str
    gain: Difference
    bounds: list[Bound] = Field(default=[])

    @property
    def useless(self) -> bool:
        """Return whether the model is not shown to be better than the constant answer."""
        return self.gain.low <= 0

    @property
    def proves_nothing(self) -> bool:
        """Return whether the constant answer would reach all bounds, and the model is not shown to be better."""
        return self.useless and all(one.reached_by_constant for one in self.bounds)

    @property
    def reached(self) -> bool:
        """Return whether the model may be packaged and released."""
        return all(one.reached for one in self.bounds) if self.bounds else not self.useless

    def against_constant(self, words: Words) -> str:
        """Return the gain over the constant answer, in words."""
        value, low, high = (100 * share for share in (self.gain.value, self.gain.low, self.gain.high))
        return (
            f"against the constant answer {self.constant!r}, {words.changed} {value:+.1f} {words.unit} "
            f"[{low:+.1f}, {high:+.1f}]"
        )

    def problem(self, words: Words) -> str:
        """Return what the model lacks, in words; empty where it has reached the minimum."""
        if self.reached:
            return ""
        if not self.bounds:
            return f"the model is not shown to be better than a constant answer: {self.against_constant(words)}; {HOW}"
        missed = (
            f"{one.metric} is not defined on the test set"
            if one.found is None
            else f"{one.metric} is only known to be {one.found:.4g}, and evaluate.minimum is {one.bound:.4g}"
            for one in self.bounds
            if not one.reached
        )
        return f"the model misses the minimum of its recipe: {', '.join(missed)} (the worse limit counts)"


def minimum_of(
    quality: Quality, report: Report, logits: Logits, gold: Gold, target: Target, required: Mapping[str, float]
) -> Minimum:
    """Compare a model with the best constant answer, and its `report` with the bounds `required`.

    `logits` are float32 [rows, labels].
    """
    constant = quality.commonest(gold, target)
    always = certain(np.repeat(constant[None], len(gold), axis=0), target)
    plain = quality.measure(always, gold, target, resamples=1)
    return Minimum(
        constant=target.spell(constant),
        gain=quality.contest(logits, always, gold, target).difference((1 - report.confidence) / 2),
        bounds=[_bound(report, metric, bound, plain) for metric, bound in required.items()],
    )


def best_possible(quality: Quality, gold: Gold, target: Target, confidence: float) -> Minimum:
    """Return how much better than the constant a model without any error would be."""
    constant = quality.commonest(gold, target)
    always = certain(np.repeat(constant[None], len(gold), axis=0), target)
    perfect = quality.contest(certain(gold, target), always, gold, target)
    return Minimum(constant=target.spell(constant), gain=perfect.difference((1 - confidence) / 2))


def minimum_in(evaluation: Mapping[str, Any]) -> Minimum | None:
    """Return the minimum that a bundle's evaluation records; None where it has none.

    Bundles made before there was a minimum have none. For those with one label a row it follows from the recall of
    each label.
    """
    try:
        if "minimum" in evaluation:
            return Minimum.model_validate(evaluation["minimum"])
        return _from_recall(evaluation["tuned"])
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError):
        return None


def certain(answers: Gold, target: Target) -> Logits:
    """Return outputs, float32 [rows, labels], of a model that is certain of these answers."""
    return target.logits(target.certain(answers))


def _bound(report: Report, metric: str, bound: float, constant: Report) -> Bound:
    less = metric in type(report).lower_is_better

    def held(value: float) -> bool:
        return value <= bound if less else value >= bound

    found, plain = report.metrics.get(metric), constant.metrics.get(metric)
    by_constant = plain is not None and held(plain.value)
    if found is None:
        return Bound(metric=metric, bound=bound, found=None, reached=False, reached_by_constant=by_constant)
    limit = found.high if less else found.low
    return Bound(metric=metric, bound=bound, found=limit, reached=held(limit), reached_by_constant=by_constant)


def _from_recall(tuned: Mapping[str, Any]) -> Minimum | None:
    from bentune.quality.one_label import Proportions

    if tuned.get("hamming_loss") is not None:
        return None
    support = {label: int(one["support"]) for label, one in tuned["per_class"].items()}
    hits = {label: round(one["recall"]["value"] * support[label]) for label, one in tuned["per_class"].items()}
    commonest = max(support, key=lambda label: support[label])
    gained = sum(hits.values()) - hits[commonest]
    counts = Proportions(gained, support[commonest] - hits[commonest], sum(support.values()))
    return Minimum(constant=commonest, gain=counts.difference((1 - tuned["confidence"]) / 2))
