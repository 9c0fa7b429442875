"""The non-inferiority test: published numbers, an independent computation, its exact size, and what it promises."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from properties import examples
from scipy import stats
from scipy.optimize import minimize_scalar
from statsmodels.stats.proportion import proportion_confint

from bentune.quality.statistics.noninferiority import (
    CORRECTION,
    interval,
    mcnemar,
    p_value,
    paired_loss,
    rows_needed,
    statistic,
)

MARGIN, ALPHA, POWER = 0.01, 0.05, 0.8
Z = stats.norm.ppf(1 - ALPHA)
SIMULATED = 1000
THREE_SIGMA = 3 * (ALPHA * (1 - ALPHA) / SIMULATED) ** 0.5


def by_likelihood(gained: int, lost: int, rows: int, difference: float) -> float:
    """Return Tango's Z with the most likely share of lost rows.

    A search finds the share, rather than the quadratic.
    """

    def unlikely(share: float) -> float:
        cells = (share + difference, share, 1 - 2 * share - difference)
        counts = (gained, lost, rows - gained - lost)
        return -sum(n * np.log(max(cell, 1e-300)) for n, cell in zip(counts, cells, strict=True) if n)

    found = minimize_scalar(
        unlikely, bounds=(max(0.0, -difference), (1 - difference) / 2), method="bounded", options={"xatol": 1e-12}
    )
    variance = rows * (2 * found.x + difference - difference**2)
    return float((gained - lost - rows * difference) / variance**0.5)


def test_tangos_own_example() -> None:
    """The data are on disinfecting contact lenses: 44 pairs, 0 and 1 discordant.

    Their source is Tango 1998 (Miyanaga's data). The margin is 10 %.
    """
    assert statistic(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)


def test_the_published_interval_of_a_textbook() -> None:
    """The data are on airway responsiveness: 21 pairs, Tango's 95 % limits.

    Their source is Fagerland, Lydersen and Laake 2014.
    """
    value, low, high = interval(1, 7, 21, 0.025, correction=0.0)
    assert (round(value, 3), round(low, 3), round(high, 3)) == (-0.286, -0.517, -0.026)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400), st.floats(-0.3, 0.3))
@examples(200)
def test_the_statistic_is_that_of_the_restricted_likelihood(gained: int, lost: int, same: int, d: float) -> None:
    rows = gained + lost + same
    if rows < 5 or abs(d) < 1e-3:
        return
    assert float(statistic(gained, lost, rows, d)) == pytest.approx(by_likelihood(gained, lost, rows, d), abs=2e-3)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 500))
@settings(deadline=None)
def test_limits_are_where_the_statistic_is_z(gained: int, lost: int, same: int) -> None:
    rows = gained + lost + same
    value, low, high = interval(gained, lost, rows, ALPHA)
    assert low < value < high
    assert float(statistic(gained, lost, rows, low, CORRECTION)) == pytest.approx(Z, abs=1e-4)
    assert float(statistic(lost, gained, rows, -high, CORRECTION)) == pytest.approx(Z, abs=1e-4)
    # The decision by the limit is the decision by the p-value.
    assert (low > -MARGIN) == (p_value(gained, lost, rows, MARGIN) < ALPHA)


def test_all_lost_has_no_lower_limit_but_the_least() -> None:
    assert interval(0, 10, 10, ALPHA)[1] == -1.0
    assert interval(10, 0, 10, ALPHA)[2] == 1.0


def chance_to_pass(rows: int, share: float, difference: float, margin: float, correction: float) -> float:
    """Exact, by adding up the trinomial distribution: `share` of the rows disagree."""
    most = min(rows, int(rows * share + 8 * (rows * share) ** 0.5 + 15))
    gained, lost = np.arange(most + 1)[:, None], np.arange(most + 1)[None, :]
    probability = stats.binom.pmf(gained + lost, rows, share) * stats.binom.pmf(
        gained, gained + lost, (share + difference) / 2 / share
    )
    passes = statistic(gained, lost, np.full((most + 1, most + 1), rows), -margin, correction) > Z
    return float(probability[passes & (gained + lost <= rows)].sum())


@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.05])
def test_the_type_one_error_is_held_exactly(margin: float) -> None:
    shares = margin + np.array([0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
    sizes = [
        chance_to_pass(rows, float(share), -margin, margin, CORRECTION)
        for rows in (50, 100, 200, 268, 400, 1000, 2000)
        for share in shares
    ]
    assert max(sizes) <= ALPHA


def test_without_the_correction_it_would_not_be() -> None:
    assert chance_to_pass(268, 0.01, -0.01, 0.01, correction=0.0) == pytest.approx(0.99**268)  # 6.8 %


@pytest.mark.parametrize("share", [0.02, 0.05, 0.10])
@pytest.mark.parametrize("rows", [300, 1000, 5000])
def test_of_pairs_that_lose_just_the_margin_at_most_five_percent_pass(share: float, rows: int) -> None:
    rng = np.random.default_rng([rows, int(share * 1000)])
    counts = rng.multinomial(rows, [(share - MARGIN) / 2, (share + MARGIN) / 2, 1 - share], size=SIMULATED)
    passed = statistic(counts[:, 0], counts[:, 1], np.full(SIMULATED, rows), -MARGIN, CORRECTION) > Z
    assert passed.mean() <= ALPHA + THREE_SIGMA


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.10])
@pytest.mark.parametrize("pilot", [100, 400])
def test_of_equally_good_pairs_four_in_five_pass_with_the_rows_asked_for(share: float, pilot: int) -> None:
    rng = np.random.default_rng([pilot, int(share * 1000)])
    seen = rng.multinomial(pilot, [share / 2, share / 2, 1 - share], size=SIMULATED)
    asked = {
        disagreed: rows_needed(int(disagreed), 0, pilot, margin=MARGIN, alpha=ALPHA, power=POWER)
        for disagreed in np.unique(seen[:, 0] + seen[:, 1])
    }
    rows = np.array([asked[one] for one in seen[:, 0] + seen[:, 1]])
    disagreed = rng.binomial(rows, share)
    gained = rng.binomial(disagreed, 0.5)
    passed = statistic(gained, disagreed - gained, rows, -MARGIN, CORRECTION) > Z
    assert passed.mean() >= POWER


def test_rows_needed_takes_the_upper_limit_of_the_disagreement() -> None:
    upper = proportion_confint(8, 200, alpha=2 * (1 - POWER), method="beta")[1]
    assert upper == pytest.approx(0.0564, abs=5e-4)
    rows = rows_needed(5, 3, 200, margin=MARGIN, alpha=ALPHA, power=POWER)
    # (1.645 + 0.842)^2 x 0.0564 / 0.01^2, and a little for the correction and the variance under the hypothesis.
    assert 3450 < rows < 3750
    assert chance_to_pass(rows, upper, 0.0, MARGIN, CORRECTION) == pytest.approx(POWER, abs=0.01)
    assert rows_needed(3, 5, 200, margin=MARGIN, alpha=ALPHA, power=POWER) == rows
    assert rows_needed(5, 3, 200, margin=MARGIN, alpha=ALPHA, power=0.9) > rows
    assert rows_needed(5, 3, 200, margin=2 * MARGIN, alpha=ALPHA, power=POWER) < rows / 3


def test_rows_needed_where_all_agree_or_none() -> None:
    assert 361 < rows_needed(0, 0, 1000, margin=MARGIN, alpha=ALPHA, power=POWER) < 700
    assert rows_needed(5, 5, 10, margin=MARGIN, alpha=ALPHA, power=POWER) > 60_000


def test_mcnemar_is_the_binomial_test_of_the_discordant_rows() -> None:
    found = mcnemar(3, 12, 500)
    assert (found.name, found.gained, found.lost) == ("McNemar's exact p", 3, 12)
    assert found.p_value == pytest.approx(stats.binomtest(3, 15, 0.5).pvalue)
    assert mcnemar(0, 0, 10).p_value == 1.0
    assert mcnemar(4, 4, 10).p_value == 1.0


# The loss of a variant, and how sure it is.


@pytest.mark.parametrize(
    ("lost", "won", "rows", "expected"),
    [
        # 5.5 rows against 2.5, of 102: (3 +- 1.96 sqrt(8 - 9/102)) / 102.
        (5, 2, 100, (3.0, -2.463785, 8.346137)),
        # Half a row each, of 102: (0 +- 1.96 sqrt(1)) / 102. Wald's would have no width at all.
        (0, 0, 100, (0.0, -1.921569, 1.921569)),
        # 10.5 against 0.5, of 514: (10 +- 1.96 sqrt(11 - 100/514)) / 514.
        (10, 0, 512, (1.953125, 0.692054, 3.198996)),
    ],
)
def test_the_interval_is_agresti_and_mins(lost: int, won: int, rows: int, expected: tuple[float, float, float]) -> None:
    assert paired_loss(lost, won, rows) == pytest.approx(expected, abs=1e-6)


@st.composite
def counts(draw: Any) -> tuple[int, int, int]:
    """Rows that only one got right, that only the other got right, and all rows."""
    rows = draw(st.integers(1, 2000))
    lost = draw(st.integers(0, rows))
    return lost, draw(st.integers(0, rows - lost)), rows


@given(counts())
def test_swapping_the_two_turns_the_interval_around(found: tuple[int, int, int]) -> None:
    lost, won, rows = found
    loss, low, high = paired_loss(lost, won, rows)
    assert paired_loss(won, lost, rows) == pytest.approx((-loss, -high, -low))


@given(counts())
def test_the_interval_holds_its_centre_and_stays_within_what_can_be(found: tuple[int, int, int]) -> None:
    lost, won, rows = found
    loss, low, high = paired_loss(lost, won, rows)
    assert loss == pytest.approx(100 * (lost - won) / rows)
    assert -100 <= low <= 100 * (lost - won) / (rows + 2) <= high <= 100
    # The centre is drawn towards 0, by less than the interval is wide unless nearly every row differs.
    assume(lost + won <= rows / 2)
    assert low <= loss <= high


@given(counts(), st.integers(2, 20))
def test_more_rows_never_make_it_wider(found: tuple[int, int, int], times: int) -> None:
    lost, won, rows = found
    assume(rows >= 4)
    _, low, high = paired_loss(lost, won, rows)
    _, low_more, high_more = paired_loss(lost * times, won * times, rows * times)
    assert high_more - low_more <= high - low + 1e-9


@given(counts())
def test_each_row_that_is_lost_moves_it_up(found: tuple[int, int, int]) -> None:
    lost, won, rows = found
    assume(lost + won < rows)
    before, after = paired_loss(lost, won, rows), paired_loss(lost + 1, won, rows)
    assert after[0] > before[0]
    assert after[1] + after[2] > before[1] + before[2] or 100 in after
