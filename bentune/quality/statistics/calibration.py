"""Calibration: the confidence of a classifier against its accuracy.

A calibrated classifier is right in 80 % of the rows in which its confidence is 80 %. ECE is the expected calibration
error over bins of equal width (Guo et al. 2017): the mean over rows of the distance between the mean confidence and the
accuracy of their bin. It cannot be negative, so noise inflates it, most with few rows. The difference of two
classifiers on the same rows cancels most of that bias.
"""

import numpy as np

from bentune.bundle.arrays import Floats, Ints, Mask
from bentune.bundle.files import Frozen
from bentune.bundle.targets.many_labels import THRESHOLD
from bentune.bundle.verdict import Difference
from bentune.quality.statistics.bootstrap import Interval

_CELLS_PER_BLOCK = 1 << 22


class Bin(Frozen):
    """Rows whose confidence is above `low` and at most `high`.

    Both means are None without rows.
    """

    low: float
    high: float
    rows: int
    confidence: float | None
    accuracy: float | None


class Calibration(Frozen):
    """Calibration of a classifier: `error` is the ECE, a share, and `bins` the reliability curve."""

    error: Interval
    bins: list[Bin]


def reliability(scores: Floats, gold: Ints, bins: int) -> list[Bin]:
    """Return the reliability table of probabilities, float64 [rows, labels].

    `gold` is int64 [rows].
    """
    return _table(scores.max(axis=1), scores.argmax(axis=1) == gold, bins)


def decision_reliability(scores: Floats, gold: Ints, bins: int) -> list[Bin]:
    """Return the reliability table of all decisions on labels.

    `scores` and `gold` are [rows, labels], `gold` of 0 and 1.
    """
    decided = scores > THRESHOLD
    return _table(np.where(decided, scores, 1 - scores).ravel(), (decided == gold).ravel(), bins)


def _table(confidence: Floats, right: Mask, bins: int) -> list[Bin]:
    place = _bin_of(confidence, bins)
    edges = np.linspace(0, 1, bins + 1)
    table = []
    for number in range(bins):
        inside = place == number
        table.append(
            Bin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                rows=int(inside.sum()),
                confidence=float(confidence[inside].mean()) if inside.any() else None,
                accuracy=float(right[inside].mean()) if inside.any() else None,
            )
        )
    return table


def ece(table: list[Bin]) -> float:
    """Return the expected calibration error of a reliability table, a share."""
    rows = sum(one.rows for one in table)
    gaps = (one.rows * abs((one.confidence or 0.0) - (one.accuracy or 0.0)) for one in table)
    return sum(gaps) / rows


def ece_difference(
    candidate: Floats, served: Floats, gold: Ints, *, bins: int, resamples: int, confidence: float, seed: int
) -> Difference:
    """Return the candidate's ECE minus the served model's, with a bootstrap interval.

    Each resample draws the same rows for both. The scores are float64 [rows, labels], `gold` is int64 [rows].
    """
    gaps = [_in_bins(*gap_of_each(scores, gold, bins), bins) for scores in (candidate, served)]
    value = ece(reliability(candidate, gold, bins)) - ece(reliability(served, gold, bins))
    return _difference(value, gaps, len(gold), resamples, confidence, seed)


def decision_ece_difference(
    candidate: Floats, served: Floats, gold: Ints, *, bins: int, resamples: int, confidence: float, seed: int
) -> Difference:
    """Return the change of the ECE over all decisions on labels.

    The scores and `gold`, of 0 and 1, are [rows, labels].
    """
    gaps = [
        np.sum([decision_gaps(scores[:, label], gold[:, label] > 0, bins) for label in range(gold.shape[1])], axis=0)
        for scores in (candidate, served)
    ]
    value = ece(decision_reliability(candidate, gold, bins)) - ece(decision_reliability(served, gold, bins))
    return _difference(value, gaps, gold.size, resamples, confidence, seed)


def _difference(
    value: float, gaps_of_each: list[Floats], items: int, resamples: int, confidence: float, seed: int
) -> Difference:
    """Return the difference with its bootstrap interval.

    `gaps_of_each` has the gaps of the candidate and of the served model, float64 [rows, bins].
    """
    gaps = np.hstack(gaps_of_each)
    rows, bins = gaps.shape[0], gaps.shape[1] // 2
    rng = np.random.default_rng(seed)
    spread: list[float] = []
    block = max(1, _CELLS_PER_BLOCK // rows)
    for start in range(0, resamples, block):
        times = rng.multinomial(rows, np.full(rows, 1 / rows), size=min(block, resamples - start))
        sums = np.abs(times.astype(np.float64) @ gaps) / items
        spread += (sums[:, :bins].sum(axis=1) - sums[:, bins:].sum(axis=1)).tolist()
    low, high = np.quantile(spread, [(1 - confidence) / 2, (1 + confidence) / 2])
    # ECE is biased: the percentiles can exclude the value.
    return Difference(value=value, low=float(min(low, value)), high=float(max(high, value)))


def decision_gaps(scores: Floats, gold: Mask, bins: int) -> Floats:
    """Return confidence minus correctness of one label's decisions.

    The result is float64 [rows, bins], with each decision in its bin. `scores` are the label's probabilities, float64
    [rows]; `gold` is bool [rows].
    """
    decided = scores > THRESHOLD
    confidence = np.where(decided, scores, 1 - scores)
    return _in_bins(confidence - (decided == gold), _bin_of(confidence, bins), bins)


def gap_of_each(scores: Floats, gold: Ints, bins: int) -> tuple[Floats, Ints]:
    """Return each row's confidence minus its correctness, and its bin.

    They are float64 [rows] and int64 [rows].
    """
    confidence = scores.max(axis=1)
    return confidence - (scores.argmax(axis=1) == gold), _bin_of(confidence, bins)


def _in_bins(gap: Floats, place: Ints, bins: int) -> Floats:
    gaps = np.zeros((len(gap), bins))
    gaps[np.arange(len(gap)), place] = gap
    return gaps


def _bin_of(confidence: Floats, bins: int) -> Ints:
    """Return the bin of each confidence, int64 [rows]; a bin includes its upper edge."""
    found: Ints = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return found
