"""A number a row: outputs in standard deviations, scores in the row's unit."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bentune.bundle.targets.number import Number, number_in
from bentune.bundle.targets.registry import target_in
from bentune.bundle.targets.target import Observation

STARS = Number(labels=["stars"], center=3.0, scale=2.0)
numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=1, max_size=5), numbers, st.floats(1e-3, 1e6))
def test_scores_and_outputs_are_one_another_s_inverse(given_: list[float], center: float, scale: float) -> None:
    target, scores = Number(labels=["x"], center=center, scale=scale), np.array(given_)[:, None]
    again = target.scores(target.logits(scores).astype(np.float64))
    assert again == pytest.approx(scores, rel=1e-5, abs=1e-5 * (scale + abs(center) + np.abs(scores).max()))


def test_an_answer_is_the_number_and_is_shown_under_its_name() -> None:
    outputs = np.array([[0.0], [-1.0], [0.75]], dtype=np.float32)
    assert STARS.scores(outputs).tolist() == [[3.0], [1.0], [4.5]]
    assert STARS.answers(outputs).tolist() == STARS.decided(STARS.scores(outputs)).tolist() == [3.0, 1.0, 4.5]
    assert STARS.ranked(STARS.scores(outputs)[2], top_k=1, by=outputs[2]) == [{"label": "stars", "score": 4.5}]
    assert STARS.best(outputs[2]) == STARS.spell(4.5) == "4.5"
    assert STARS.observe(STARS.scores(outputs)[2]) == Observation(["stars"], None, {"value": 4.5})
    assert STARS.sureness(STARS.scores(outputs)) is None


def test_answers_differ_beyond_a_tenth_of_a_standard_deviation_and_where_one_is_none() -> None:
    found = STARS.differ(np.array([3.0, 3.0, 3.0, np.nan]), np.array([3.0, 3.19, 3.21, 3.0]))
    assert found.tolist() == [False, False, True, True]
    assert STARS.distance(np.array([[1.0], [2.0]]), np.array([[1.0], [5.0]])) == 1.5
    assert math.isnan(STARS.distance(np.array([np.nan]), np.array([1.0])))


def test_golden_rows_take_turns_by_how_far_they_are_from_the_mean() -> None:
    assert STARS.turns(np.array([[-9.0], [-1.2], [0.1], [1.4], [7.0]])).tolist() == [0, 1, 2, 3, 4]


def test_a_replayed_number_flips_where_it_moved() -> None:
    found = STARS.replayed({"stars": 2.0}, {"stars": 4.0})
    assert (found.was_sure, found.sure, found.moved, found.flipped, found.weight) == (2.0, 4.0, 1.0, True, 1.0)
    assert not STARS.replayed({"stars": 2.0}, {"stars": 2.1}).flipped
    assert STARS.replayed({"stars": 2.0}, {}).flipped


def test_it_is_written_and_read_again() -> None:
    written = STARS.wire()
    assert written == {"labels": ["stars"], "target": {"kind": "number", "center": 3.0, "scale": 2.0}}
    assert target_in(written) == STARS
    with pytest.raises(ValidationError):
        target_in({"labels": ["a", "b"], "target": written["target"]})
    with pytest.raises(ValidationError):
        target_in({"labels": ["a"], "target": {"kind": "number", "center": 0.0, "scale": 0.0}})


@pytest.mark.parametrize(("value", "number"), [(4, 4.0), (4.5, 4.5), (" -3e2 ", -300.0), ("007", 7.0)])
def test_numbers_are_read(value: Any, number: float) -> None:
    assert number_in(value) == STARS.parse(value, separator=None, renamed={}) == number


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "has no number (NoneType)"),
        (True, "has no number (bool)"),
        ("four", "has a text that is no number"),
        ("4,5", "has a text that is no number"),
        ("nan", "has no number (nan)"),
        (math.inf, "has no number (inf)"),
        ([4], "has no number (list)"),
    ],
)
def test_what_is_no_number_is_said_without_the_text(value: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        number_in(value)
    assert str(caught.value).startswith(words)
    assert "four" not in str(caught.value)


def test_a_served_answer_must_have_a_finite_number() -> None:
    assert STARS.read([[{"label": "stars", "score": 2.5}]]).tolist() == [[2.5]]
    for bad in ([], [{"label": "stars", "score": math.nan}], [{"label": "points", "score": 1.0}]):
        with pytest.raises(ValueError):
            STARS.read([bad])  # type: ignore[list-item]
