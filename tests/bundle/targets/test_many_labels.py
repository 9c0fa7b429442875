"""Any number of labels a row: a probability each, and the labels above the threshold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bentune.bundle.targets.many_labels import ManyLabels, sigmoid
from bentune.bundle.targets.target import NO_LABEL, Observation

TAGS = ManyLabels(labels=["a", "b", "c"])


@given(hnp.arrays(np.float32, (2, 4), elements=st.floats(-80, 80, width=32)))
def test_each_label_has_its_own_sigmoid(values: np.ndarray) -> None:
    got = ManyLabels(labels=list("abcd")).scores(values)
    assert got.dtype == np.float32
    assert got.ravel() == pytest.approx([1 / (1 + math.exp(-value)) for value in values.ravel().tolist()], rel=1e-5)


def test_large_logits_do_not_overflow() -> None:
    with np.errstate(over="raise"):
        assert sigmoid(np.array([1e30, -1e30], dtype=np.float32)).tolist() == [1.0, 0.0]


def test_scores_that_are_both_one_are_in_the_order_of_their_logits() -> None:
    logits = np.array([18, 30, -3], dtype=np.float32)
    scores = TAGS.scores(logits)
    assert scores[:2].tolist() == [1.0, 1.0]
    assert [found["label"] for found in TAGS.ranked(scores, by=logits)] == ["b", "a", "c"]


def test_log_odds_are_finite_and_turn_back() -> None:
    scores = np.array([[1.0, 0.0, 0.5], [0.2, 0.3, 0.9]])
    found = TAGS.logits(scores)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(TAGS.scores(found), scores, atol=1e-6)


def test_answers_differ_where_a_label_crosses_the_threshold() -> None:
    one = np.array([[2.0, 1.0, -1.0], [2.0, 1.0, -1.0]], dtype=np.float32)
    other = np.array([[1.0, 2.0, -1.0], [2.0, 1.0, 0.5]], dtype=np.float32)
    found = TAGS.answers(one)
    assert found.tolist() == TAGS.decided(TAGS.scores(one)).tolist() == [[True, True, False]] * 2
    assert TAGS.differ(found, TAGS.answers(other)).tolist() == [False, True]
    assert [TAGS.spell(answer) for answer in TAGS.answers(other)] == ["a, b", "a, b, c"]
    assert TAGS.spell(np.zeros(3, bool)) == NO_LABEL
    assert TAGS.turns(other).tolist() == [1, 0], "golden rows show each best label"


def test_one_is_as_sure_of_all_as_of_the_least_sure() -> None:
    assert TAGS.sureness(np.array([[0.9, 0.4, 0.01], [0.99, 0.95, 0.03]])) == pytest.approx([0.6, 0.95])


def test_an_answer_is_counted_by_every_label_and_one_without_by_itself() -> None:
    assert TAGS.counted == ["a", "b", "c", NO_LABEL]
    confidence = float(np.float32(0.9))
    assert TAGS.observe(np.array([0.75, 0.9, 0.2], dtype=np.float32)) == Observation(
        ["a", "b"], confidence, {"label": 1, "confidence": confidence}
    )
    assert TAGS.observe(np.array([0.25, 0.5, 0.125], dtype=np.float32)) == Observation(
        [NO_LABEL], 0.5, {"label": 3, "confidence": 0.5}
    )


@pytest.mark.parametrize(
    ("value", "separator", "marks"),
    [(["a", "c"], None, [1, 0, 1]), ([], None, [0, 0, 0]), ('["b"]', None, [0, 1, 0]), ("c;was-a", ";", [1, 0, 1])],
)
def test_the_labels_of_a_row_are_read_from_a_list_or_a_text(
    value: object, separator: str | None, marks: list[int]
) -> None:
    found = TAGS.parse(value, separator=separator, renamed={"was-a": "a"})
    assert (found.tolist(), found.dtype) == (marks, np.int64)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["a", "fish"], "has 'fish', which is none of the models' labels, which are a, b, c"),
        (None, r"is not a list of labels \(NoneType\)"),
        ("a", "is a text: write a JSON list"),
    ],
)
def test_what_is_no_list_of_labels_is_refused(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        TAGS.parse(value, separator=None, renamed={})


def test_scores_of_an_answer_need_not_sum_to_one_and_each_is_a_probability() -> None:
    assert TAGS.plausible(np.array([[0.9, 0.9, 0.9]]))
    for wrong in ([0.9, 0.9, 1.1], [0.9, -0.1, 0.9], [0.9, math.nan, 0.9]):
        assert not TAGS.plausible(np.array([wrong]))


def test_a_replayed_answer_is_all_labels_and_moves_as_the_one_that_moved_most() -> None:
    found = TAGS.replayed({"a": 0.9, "b": 0.6, "c": 0.1}, {"a": 0.95, "b": 0.3, "c": 0.1})
    assert (found.before, found.was_sure, found.after, found.sure) == ("a, b", 0.6, "a", 0.7)
    assert (found.flipped, found.moved) == (True, pytest.approx(0.3))
    assert TAGS.replayed({"a": 0.1}, {"a": 0.1, "d": 0.2}).before == NO_LABEL
