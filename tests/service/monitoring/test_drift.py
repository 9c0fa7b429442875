"""The index is the one of the literature, and a window's index is that of its newest inputs and no others."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.baseline import Baseline, Binned, Histogram
from service.monitoring.drift import STEP, Drift, stability_index

COUNTS = st.lists(st.integers(0, 500), min_size=3, max_size=3)


def baseline(window: int = 100) -> Baseline:
    return Baseline(
        rows=60,
        window=window,
        looks_a_month=4320,
        features={
            "token_length": Binned(counts=[20, 20, 20], edges=[10, 20], threshold=0.3),
            "label": Histogram(counts=[30, 30, 0], threshold=0.3),
            "confidence": Binned(counts=[10, 20, 30], edges=[0.5, 0.9], threshold=0.3),
        },
    )


def test_the_index_by_hand() -> None:
    # Shares of 0.25 and 0.75 against halves, by the definition; half a row a bin changes little at this size.
    by_hand = (0.25 - 0.5) * np.log(0.25 / 0.5) + (0.75 - 0.5) * np.log(0.75 / 0.5)
    found = stability_index(np.array([25_000, 75_000]), np.array([50_000, 50_000]))
    assert found == pytest.approx(by_hand, rel=1e-4)
    assert by_hand == pytest.approx(0.2747, abs=1e-4)
    # And exactly, with it: 1/12 and 11/12 of 5 rows + 1 against 1/2.
    assert stability_index(np.array([0, 5]), np.array([3, 3])) == pytest.approx((5 / 12) * np.log(11), rel=1e-12)


@given(COUNTS, COUNTS)
def test_it_is_finite_symmetric_and_zero_for_equal_shares_alone(one: list[int], other: list[int]) -> None:
    forth, back = (stability_index(np.array(a), np.array(b)) for a, b in ((one, other), (other, one)))
    assert np.isfinite(forth)
    assert forth == pytest.approx(back, abs=1e-12)
    assert forth >= -1e-15
    assert stability_index(np.array(one), np.array(one)) == 0


def test_a_row_of_windows_is_each_of_them_alone() -> None:
    counts, expected = np.array([[1, 2, 3], [30, 0, 1]]), np.array([5, 5, 5])
    assert stability_index(counts, expected) == pytest.approx([stability_index(one, expected) for one in counts])


def shown_by(inputs: list[tuple[int, int, float]], window: int = 100) -> list[dict[str, float]]:
    """Return the features that were shown: one dictionary each time."""
    shown: list[dict[str, Any]] = []

    def show(feature: str, index: float) -> None:
        if not shown or feature in shown[-1]:
            shown.append({})
        shown[-1][feature] = index

    drift = Drift(baseline(window), show)
    for length, label, confidence in inputs:
        drift.answered({"confidence": confidence, "token_length": length, "label": label, "of no baseline": 1.0})
    return shown


def test_nothing_is_shown_before_the_window_is_full_and_then_every_step() -> None:
    assert shown_by([(5, 0, 0.4)] * 99) == []
    assert len(shown_by([(5, 0, 0.4)] * 100)) == 1
    assert len(shown_by([(5, 0, 0.4)] * (100 + STEP - 1))) == 1
    assert len(shown_by([(5, 0, 0.4)] * (100 + 3 * STEP))) == 4


def test_inputs_like_the_held_out_rows_have_an_index_near_zero() -> None:
    rows = [
        (length, label, score) for length in (5, 10, 25) for label in (0, 1) for score in (0.4, 0.5, 0.8, 0.9, 1, 1)
    ]
    (shown,) = shown_by((rows * 4)[:108], window=108)
    assert shown.keys() == {"token_length", "label", "confidence"}
    assert all(index < 0.01 for index in shown.values())


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2), st.floats(0.2, 1)), min_size=120, max_size=260))
def test_only_the_newest_inputs_count(inputs: list[tuple[int, int, float]]) -> None:
    """The expected values are numpy's histogram of the newest `window` inputs.

    Inputs before them do not count.
    """
    shown = shown_by(inputs)
    newest = inputs[: len(inputs) - (len(inputs) - 100) % STEP][-100:]
    lengths, labels, scores = (np.array(values) for values in zip(*newest, strict=True))
    one = baseline()
    expected = {
        "token_length": np.histogram(lengths, [-np.inf, 10, 20, np.inf])[0],
        "label": np.bincount(labels, minlength=3),
        "confidence": np.histogram(scores, [-np.inf, 0.5, 0.9, np.inf])[0],
    }
    for name, histogram in one.features.items():
        assert shown[-1][name] == pytest.approx(stability_index(expected[name], np.array(histogram.counts)), abs=1e-12)
