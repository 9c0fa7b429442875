"""Whether a candidate loses less accuracy than a margin: Tango's score test for paired proportions, and rows it needs.

Of `rows` pairs of answers, `gained` are right in the candidate alone and `lost` in the served model alone; the rest
agree and tell nothing of the difference, (gained - lost) / rows. The test is the score test of Tango (1998, Statistics
in Medicine 17, 891-908), whose variance is the one under the hypothesis. It is used with a continuity correction of
half a row: without it, at a margin of one point and 268 rows, 6.8 % of the models that lose one point pass at a level
of 5 %; with it, never more than the level over the grid of margins, rows and disagreements of the tests.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bentune.quality.quality import PairedTest

Numbers: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = float | npt.NDArray[np.integer] | npt.NDArray[np.floating]

CORRECTION = 0.5
"""Of a row: gained - lost comes in whole rows."""
MOST_ROWS = 1_000_000_000
_STEPS = 40
_EDGE = 1e-9


def mcnemar(gained: int, lost: int, rows: int) -> PairedTest:
    """Test by McNemar's exact test whether two classifiers are equally often right: only rows where one is count."""
    from statsmodels.stats.contingency_tables import mcnemar as exact

    table = [[rows - gained - lost, gained], [lost, 0]]
    return PairedTest(
        name="McNemar's exact p", gained=gained, lost=lost, p_value=min(1.0, float(exact(table, exact=True).pvalue))
    )


def statistic(gained: Counts, lost: Counts, rows: Counts, difference: float, correction: float = 0.0) -> Numbers:
    """Tango's Z, standard normal when candidate minus served is `difference` (a share, between -1 and 1).

    `correction` rows are taken off the observed difference. The arguments may be arrays of the same shape.
    """
    b, c, n = (np.asarray(value, dtype=np.float64) for value in (gained, lost, rows))
    # The most likely share of lost rows under the hypothesis: a root of a quadratic.
    linear = -b - c + (2 * n - b + c) * difference
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * difference * (1 - difference), 0.0))
    share = (root - linear) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    z: Numbers = (b - c - n * difference - correction) / np.sqrt(np.maximum(variance, 1e-12))
    return z


def interval(
    gained: int, lost: int, rows: int, alpha: float, correction: float = CORRECTION
) -> tuple[float, float, float]:
    """The difference with its lower and upper limit; each limit is wrong at most `alpha` of the time."""
    z = NormalDist().inv_cdf(1 - alpha)
    value = (gained - lost) / rows
    low = _root(lambda difference: float(statistic(gained, lost, rows, difference, correction)) - z, value)
    # The other limit is that of the two models in each other's place.
    high = -_root(lambda difference: float(statistic(lost, gained, rows, difference, correction)) - z, -value)
    return value, low, high


def p_value(gained: int, lost: int, rows: int, margin: float) -> float:
    """One-sided p-value for that the candidate loses `margin` (a share) or more."""
    return 1 - NormalDist().cdf(float(statistic(gained, lost, rows, -margin, CORRECTION)))


def rows_needed(gained: int, lost: int, rows: int, *, margin: float, alpha: float, power: float) -> int:
    """How many rows in all promote a candidate that is as good as what is served, with probability `power`.

    It follows from how often the two disagreed on which is right: by the normal approximation for the difference of
    two equally good models, at the upper limit of that share at confidence `power` (Clopper and Pearson 1934), so that
    few rows that agreed by luck do not promise too much.
    """
    from scipy.stats import beta

    disagreed = gained + lost
    share = float(beta.ppf(power, disagreed + 1, rows - disagreed)) if disagreed < rows else 1.0
    enough = 1
    while enough < MOST_ROWS and _power(enough, share, margin, alpha) < power:
        enough *= 2
    low = enough // 2
    while enough - low > 1:
        middle = (low + enough) // 2
        low, enough = (low, middle) if _power(middle, share, margin, alpha) >= power else (middle, enough)
    return enough


def paired_loss(lost: int, won: int, rows: int) -> tuple[float, float, float]:
    """Points of accuracy that a variant loses, with a 95 % interval, from the rows that only one of the two got right.

    The interval is Agresti and Min's for matched pairs (Statistics in Medicine 2005, 24:729): Wald's after half a row
    was added to each cell, so that it does not shrink to nothing where no row differs.
    """
    lost_more, won_more, more = lost + 0.5, won + 0.5, rows + 2
    centre = (lost_more - won_more) / more
    width = 1.96 * math.sqrt(lost_more + won_more - (lost_more - won_more) ** 2 / more) / more
    return 100 * (lost - won) / rows, 100 * max(centre - width, -1), 100 * min(centre + width, 1)


def _power(rows: int, share: float, margin: float, alpha: float) -> float:
    """Probability that two equally good models, one of which alone is right in `share` of the rows, pass the test."""
    expected = rows * share / 2
    linear = -2 * expected - 2 * rows * margin
    root = math.sqrt(max(linear**2 - 8 * rows * expected * margin * (1 + margin), 0.0))
    variance = rows * ((root - linear) / (2 * rows) - margin * (1 + margin))
    must_pass = NormalDist().inv_cdf(1 - alpha) * math.sqrt(max(variance, 0.0)) + CORRECTION - rows * margin
    return NormalDist().cdf(-must_pass / math.sqrt(max(rows * share, 1e-12)))


def _root(above: Callable[[float], float], value: float) -> float:
    """Where a statistic that falls with the difference crosses 0 below the observed `value`; -1 where it does not."""
    low, high = -1 + _EDGE, max(value, -1 + _EDGE)
    if above(low) < 0:
        return -1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 0 else (low, middle)
    return low
