"""The non-inferiority test: published numbers, an independent computation, its exact size, and what it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar
from statsmodels.stats.proportion import proportion_confint

from bentune.quality.noninferiority import CORRECTION, interval, mcnemar, p_value, rows_needed, statistic

MARGIN, ALPHA, POWER = 0.01, 0.05, 0.8
Z = stats.norm.ppf(1 - ALPHA)
SIMULATED = 1000
THREE_SIGMA = 3 * (ALPHA * (1 - ALPHA) / SIMULATED) ** 0.5


def by_likelihood(gained: int, lost: int, rows: int, difference: float) -> float:
    """Tango's Z with the most likely share of lost rows found by a search rather than by the quadratic."""

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
    """Disinfection of contact lenses (Tango 1998, Miyanaga's data): 44 pairs, 0 and 1 discordant, margin 10 %."""
    assert statistic(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)


def test_the_published_interval_of_a_textbook() -> None:
    """Airway responsiveness, 21 pairs (Fagerland, Lydersen and Laake 2014): Tango's 95 % limits."""
    value, low, high = interval(1, 7, 21, 0.025, correction=0.0)
    assert (round(value, 3), round(low, 3), round(high, 3)) == (-0.286, -0.517, -0.026)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400), st.floats(-0.3, 0.3))
@settings(max_examples=200, deadline=None)
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
    assert (found.gained, found.lost) == (3, 12)
    assert found.p_value == pytest.approx(stats.binomtest(3, 15, 0.5).pvalue)
    assert mcnemar(0, 0, 10).p_value == 1.0
    assert mcnemar(4, 4, 10).p_value == 1.0
