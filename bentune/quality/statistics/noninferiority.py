"""Non-inferiority of a candidate's accuracy: Tango's score test for paired proportions.

Among `rows` pairs of answers, `gained` are right in the candidate alone and `lost` in the served model alone. The
difference is (gained - lost) / rows; the other pairs agree and do not affect it. The test is the score test of Tango
(1998, Statistics in Medicine 17, 891-908), with the variance under the hypothesis and a continuity correction of half a
row. Without the correction, at a margin of one point and 268 rows, 6.8 % of the models that lose one point pass at a
level of 5 %. With it, the tests find no more than the level over their grid of margins, rows and disagreements.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Floats
from bentune.quality.quality import PairedTest

CountLike: TypeAlias = float | npt.NDArray[np.integer] | npt.NDArray[np.floating]

CORRECTION = 0.5
"""Continuity correction in rows: gained - lost is a whole number."""
MOST_ROWS = 1_000_000_000
_STEPS = 40
_EDGE = 1e-9


def mcnemar(gained: int, lost: int, rows: int) -> PairedTest:
    """Test for equal accuracy by McNemar's exact test.

    Only rows in which exactly one model is right count.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact

    table = [[rows - gained - lost, gained], [lost, 0]]
    return PairedTest(
        name="McNemar's exact p", gained=gained, lost=lost, p_value=min(1.0, float(exact(table, exact=True).pvalue))
    )


def statistic(
    gained: CountLike, lost: CountLike, rows: CountLike, difference: float, correction: float = 0.0
) -> Floats:
    """Compute Tango's Z, standard normal when candidate minus served is `difference`.

    `difference` is a share, between -1 and 1. `correction` rows are subtracted from the observed difference. The
    arguments may be arrays of the same shape.
    """
    b, c, n = (np.asarray(value, dtype=np.float64) for value in (gained, lost, rows))
    # The maximum likelihood estimate of the share of lost rows under the hypothesis: a root of a quadratic.
    linear = -b - c + (2 * n - b + c) * difference
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * difference * (1 - difference), 0.0))
    share = (root - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    z: Floats = (b - c - n * difference - correction) / np.sqrt(np.maximum(variance, 1e-12))
    return z


def interval(
    gained: int, lost: int, rows: int, alpha: float, correction: float = CORRECTION
) -> tuple[float, float, float]:
    """Return the difference with its lower and upper limit.

    Each limit is one-sided at level `alpha`.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    value = (gained - lost) / rows
    low = _root(lambda difference: float(statistic(gained, lost, rows, difference, correction)) - z, value)
    # By symmetry: the upper limit is the lower one with the two models exchanged.
    high = -_root(lambda difference: float(statistic(lost, gained, rows, difference, correction)) - z, -value)
    return value, low, high


def p_value(gained: int, lost: int, rows: int, margin: float) -> float:
    """Compute the one-sided p-value of losing `margin` (a share) or more."""
    return 1 - NormalDist().cdf(float(statistic(gained, lost, rows, -margin, CORRECTION)))


def rows_needed(gained: int, lost: int, rows: int, *, margin: float, alpha: float, power: float) -> int:
    """Return the total number of rows that promotes an equally good candidate.

    `power` is the probability of the promotion. The number is by the normal approximation for the difference of two
    equally good models. The share of rows in which only one is right is taken at its upper limit at confidence `power`
    (Clopper and Pearson 1934), so that a few rows that agree by chance do not give too small a number.
    """
    from scipy.stats import beta

    disagreed = gained + lost
    share = float(beta.ppf(power, disagreed + 1, rows - disagreed)) if disagreed < rows else 1.0
    return rows_for(share, margin=margin, alpha=alpha, power=power)


def rows_for(share: float, *, margin: float, alpha: float, power: float) -> int:
    """Compute the total rows that promote an equally good candidate if only one is right in a `share` of them."""
    enough = 1
    while enough < MOST_ROWS and _power(enough, share, margin, alpha) < power:
        enough *= 2
    low = enough // 2
    while enough - low > 1:
        middle = (low + enough) // 2
        low, enough = (low, middle) if _power(middle, share, margin, alpha) >= power else (middle, enough)
    return enough


def paired_loss(lost: int, won: int, rows: int) -> tuple[float, float, float]:
    """Return the points of accuracy that a variant loses, with a 95 % interval.

    `lost` and `won` count the rows in which only one of the two is right. The interval is Agresti and Min's for matched
    pairs (Statistics in Medicine 2005, 24:729): Wald's with half a row added to each cell, so that it keeps a width
    where no row differs.
    """
    lost_more, won_more, more = lost + 0.5, won + 0.5, rows + 2
    centre = (lost_more - won_more) / more
    width = 1.96 * math.sqrt(lost_more + won_more - (lost_more - won_more) ** 2 / more) / more
    return 100 * (lost - won) / rows, 100 * max(centre - width, -1), 100 * min(centre + width, 1)


def _power(rows: int, share: float, margin: float, alpha: float) -> float:
    """Compute the probability that two equally good models pass.

    In `share` of the rows only one is right.
    """
    expected = rows * share / 2
    linear = -2 * expected - 2 * rows * margin
    root = math.sqrt(max(linear**2 - 8 * rows * expected * margin * (1 + margin), 0.0))
    variance = rows * ((root - linear) / (2 * rows) - margin * (1 + margin))
    must_pass = NormalDist().inv_cdf(1 - alpha) * math.sqrt(max(variance, 0.0)) + CORRECTION - rows * margin
    return NormalDist().cdf(-must_pass / math.sqrt(max(rows * share, 1e-12)))


def _root(above: Callable[[float], float], value: float) -> float:
    """Find the zero of a decreasing statistic below the observed `value`.

    The result is -1 where there is none.
    """
    low, high = -1 + _EDGE, max(value, -1 + _EDGE)
    if above(low) < 0:
        return -1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 0 else (low, middle)
    return low
