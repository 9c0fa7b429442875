"""Areas under the ROC curve: each label against the others, and their mean."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Floats, Mask
from bentune.quality.statistics.bootstrap import Interval


def areas(scores: Floats, gold: Mask, confidence: float) -> tuple[Interval | None, list[Interval | None]]:
    """Return the mean area under the ROC curve and each label's.

    An area is None where all rows or no row has the label. `scores` are float64 [rows, labels], `gold` is bool [rows,
    labels]. The values are those of scikit-learn's roc_auc_score: the share of pairs, one row with the label and one
    without, that are ranked right, ties counting as half. Each interval is Wald's with the variance of the area's
    influence on every row (LeDell, Petersen and van der Laan, Electronic Journal of Statistics 2015, 9:1583); for one
    label that is DeLong's (Biometrics 1988, 44:837). For the mean, the influences of the labels are averaged row by
    row, because labels share the rows. The interval has no width where every pair is ranked right.
    """
    rows, found, influences = len(gold), list[float | None](), list[Floats]()
    for label in range(scores.shape[1]):
        has = gold[:, label]
        if has.all() or not has.any():
            found.append(None)
            continue
        area, influence = _area(scores[:, label], has)
        found.append(area)
        influences.append(influence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def wald(area: float, influence: Floats) -> Interval:
        reach = z * float(np.sqrt((influence**2).mean() / rows))
        return Interval(value=area, low=max(0.0, area - reach), high=min(1.0, area + reach))

    known = iter(influences)
    each = [None if area is None else wald(area, next(known)) for area in found]
    there = [area for area in found if area is not None]
    return (wald(sum(there) / len(there), np.mean(influences, axis=0)) if there else None), each


def of_classes(
    scores: Floats, gold: Sequence[int] | npt.NDArray[np.int64], confidence: float
) -> tuple[Interval | None, list[Interval | None]]:
    """Return the areas of rows with one label each, `gold` int64 [rows].

    With two labels, both have the same area.
    """
    has = np.arange(scores.shape[1]) == np.asarray(gold)[:, None]
    if scores.shape[1] > 2:
        return areas(scores, has, confidence)
    # Both labels have the same area: computed once, so that rounding cannot make them differ.
    whole, _ = areas(scores[:, 1:], has[:, 1:], confidence)
    return whole, [whole, whole]


def _area(scores: Floats, has: Mask) -> tuple[float, Floats]:
    """Compute the area and the influence of each row on it, float64 [rows]."""
    beaten = _share_below(scores[has], scores[~has])
    passed = 1 - _share_below(scores[~has], scores[has])
    area = float(beaten.mean())
    influence = np.empty(len(scores))
    influence[has] = (beaten - area) / has.mean()
    influence[~has] = (passed - area) / (~has).mean()
    return area, influence


def _share_below(scores: Floats, others: Floats) -> Floats:
    """Return for each score the share of `others` below it; equal ones count half."""
    ordered = np.sort(others)
    places = np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")
    return np.asarray(places / (2 * len(others)), dtype=np.float64)
