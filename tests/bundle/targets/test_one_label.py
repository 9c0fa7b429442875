"""One label a row: outputs to probabilities and ranked labels, and back."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from bentune.bundle.targets.one_label import OneLabel, softmax
from bentune.bundle.targets.target import Observation, Prediction

logits = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)
PETS = OneLabel(labels=["cat", "dog", "5"])


def ranked(scores: np.ndarray, labels: list[str], top_k: int | None = None, *, by: np.ndarray) -> list[Prediction]:
    return OneLabel.model_construct(labels=labels).ranked(scores, top_k, by=by)


@given(logits)
def test_probabilities_are_positive_and_sum_to_one(values: np.ndarray) -> None:
    result = softmax(values)
    assert result.shape == values.shape
    assert result.dtype == np.float32
    assert ((result >= 0) & (result <= 1)).all()
    assert result.sum(axis=-1) == pytest.approx(1, abs=1e-5)


@given(hnp.arrays(np.float32, (2, 4), elements=st.floats(-50, 50, width=32)))
def test_probabilities_are_the_softmax(values: np.ndarray) -> None:
    found = OneLabel(labels=list("abcd")).scores(values)
    for row, got in zip(values.tolist(), found, strict=True):
        exponents = [math.exp(value) for value in row]
        assert got == pytest.approx([e / sum(exponents) for e in exponents], rel=1e-4, abs=1e-7)


def test_large_logits_do_not_overflow() -> None:
    assert softmax(np.array([1e30, -1e30], dtype=np.float32)).tolist() == [1.0, 0.0]


def test_rows_do_not_touch_each_other() -> None:
    rows = np.array([[1, 2, 3], [300, 2, 1]], dtype=np.float32)
    together = softmax(rows)
    assert [together[0].tolist(), together[1].tolist()] == [softmax(row).tolist() for row in rows]


def test_log_probabilities_are_finite_and_turn_back() -> None:
    scores = np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    found = PETS.logits(scores)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(PETS.scores(found), scores, atol=1e-6)


def test_ranked_is_best_first_and_ties_keep_the_order_of_the_labels() -> None:
    scores = np.array([0.25, 0.5, 0.25], dtype=np.float32)
    assert ranked(scores, ["a", "b", "c"], by=scores) == [
        {"label": "b", "score": 0.5},
        {"label": "a", "score": 0.25},
        {"label": "c", "score": 0.25},
    ]


def test_ties_keep_the_order_of_the_labels_however_many_there_are() -> None:
    labels = [f"l{number}" for number in range(200)]
    scores = np.array([number % 2 for number in range(200)], dtype=np.float32)
    assert [p["label"] for p in ranked(scores, labels, by=scores)] == labels[1::2] + labels[::2]


@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 10)),
)
def test_top_k_keeps_the_best(values: list[float], top_k: int | None) -> None:
    labels = [f"l{number}" for number in range(len(values))]
    scores = np.array(values, dtype=np.float32)
    everything = ranked(scores, labels, by=scores)
    assert sorted(p["label"] for p in everything) == sorted(labels)
    assert [p["score"] for p in everything] == sorted(values, reverse=True)
    assert ranked(scores, labels, top_k, by=scores) == everything[:top_k]
    assert all(p["score"] == values[labels.index(p["label"])] for p in everything)


def test_scores_are_plain_floats() -> None:
    scores = np.array([0.1, 0.2], dtype=np.float32)
    prediction = ranked(scores, ["a", "b"], by=scores)[0]
    assert type(prediction["score"]) is float


def test_answers_are_the_best_labels_and_differ_where_another_is_best() -> None:
    one = np.array([[2.0, 1.0, -1.0], [2.0, 1.0, -1.0]], dtype=np.float32)
    other = np.array([[1.0, 2.0, -1.0], [2.0, 1.0, 0.5]], dtype=np.float32)
    assert PETS.answers(one).tolist() == PETS.decided(PETS.scores(one)).tolist() == PETS.turns(one).tolist() == [0, 0]
    assert PETS.differ(PETS.answers(one), PETS.answers(other)).tolist() == [True, False]
    assert PETS.sureness(PETS.scores(one)) == pytest.approx(PETS.scores(one)[:, 0])
    assert [PETS.spell(answer) for answer in PETS.answers(other)] == ["dog", "cat"]


def test_an_answer_is_counted_by_its_likeliest_label() -> None:
    assert PETS.counted == ["cat", "dog", "5"]
    found = PETS.observe(np.array([0.25, 0.5, 0.25], dtype=np.float32))
    assert found == Observation(["dog"], 0.5, {"label": 1, "confidence": 0.5})
    assert found.features.keys() == {*PETS.features}


@pytest.mark.parametrize(("value", "number"), [("cat", 0), (5, 2), (5.0, 2), (" 5 ", 2), ("feline", 0), ("dog", 1)])
def test_a_label_is_read_by_its_own_name_and_by_the_one_before_it_was_renamed(value: object, number: int) -> None:
    assert PETS.parse(value, separator=None, renamed={"feline": "cat", "dog": "cat"}) == number


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("fish", "has 'fish', which is none of the models' labels, which are cat, dog, 5"),
        ("secret " * 20, "has a label of 139 characters, which is none of"),
        (None, "has no label"),
        (True, "has no label"),
        (["cat"], "has no label"),
        ({"cat": 1}, "has no label"),
    ],
)
def test_what_is_no_label_is_refused_in_words_that_go_on_from_the_column(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}") as refused:
        PETS.parse(value, separator=None, renamed={})
    assert "secret" not in str(refused.value)


def test_served_answers_are_read_in_the_order_of_the_labels() -> None:
    answers = [ranked(row, PETS.labels, by=row) for row in np.array([[0.25, 0.5, 0.25], [1, 0, 0]], dtype=np.float32)]
    assert PETS.read(answers).tolist() == [[0.25, 0.5, 0.25], [1, 0, 0]]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([("cat", 0.5), ("dog", 0.5)], "does not have a probability for each of its 3 labels"),
        ([("cat", 0.9), ("dog", 0.9), ("5", 0.9)], "does not have a probability"),
        ([("cat", -0.5), ("dog", 1.0), ("5", 0.5)], "does not have a probability"),
        ([("cat", math.nan), ("dog", 1.0), ("5", 0.0)], "does not have a probability"),
        ([("fish", 1.0)], "is not a list of the target"),
    ],
)
def test_what_is_no_answer_is_refused(scores: list[tuple[str, float]], said: str) -> None:
    answer: list[Any] = [{"label": label, "score": score} for label, score in scores]
    with pytest.raises(ValueError, match=said):
        PETS.read([answer])


def test_a_replayed_answer_flips_with_the_likeliest_label_and_moves_by_its_probability() -> None:
    same = PETS.replayed({"cat": 0.9, "dog": 0.1}, {"cat": 0.6, "dog": 0.4})
    assert (same.before, same.after, same.flipped, same.moved) == ("cat", "cat", False, pytest.approx(0.3))
    other = PETS.replayed({"cat": 0.9, "dog": 0.1}, {"horse": 1.0})
    assert (other.before, other.was_sure, other.after, other.sure) == ("cat", 0.9, "horse", 1.0)
    assert (other.flipped, other.moved) == (True, 0.9)


def test_a_distance_is_of_the_label_that_moved_most_and_keeps_what_is_no_number() -> None:
    one = np.array([0.5, 0.25, 0.25])
    assert PETS.distance(one, np.array([0.25, 0.5, 0.25])) == 0.25
    assert math.isnan(PETS.distance(one, np.array([0.5, math.nan, 0.25])))


def test_there_are_at_least_two_labels() -> None:
    with pytest.raises(ValidationError, match="labels"):
        OneLabel(labels=["only"])
