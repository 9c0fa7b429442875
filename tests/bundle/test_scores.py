"""Logits to probabilities and ranked labels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bentune.bundle.scores import answers, differ, probabilities, ranked

logits = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


@given(logits)
def test_probabilities_are_positive_and_sum_to_one(values: np.ndarray) -> None:
    result = probabilities(values)
    assert result.shape == values.shape
    assert result.dtype == np.float32
    assert ((result >= 0) & (result <= 1)).all()
    assert result.sum(axis=-1) == pytest.approx(1, abs=1e-5)


@given(hnp.arrays(np.float32, (2, 4), elements=st.floats(-50, 50, width=32)))
def test_probabilities_are_the_softmax(values: np.ndarray) -> None:
    for row, got in zip(values.tolist(), probabilities(values), strict=True):
        exponents = [math.exp(value) for value in row]
        assert got == pytest.approx([e / sum(exponents) for e in exponents], rel=1e-4, abs=1e-7)


def test_large_logits_do_not_overflow() -> None:
    assert probabilities(np.array([1e30, -1e30], dtype=np.float32)).tolist() == [1.0, 0.0]


def test_rows_do_not_touch_each_other() -> None:
    rows = np.array([[1, 2, 3], [300, 2, 1]], dtype=np.float32)
    together = probabilities(rows)
    assert [together[0].tolist(), together[1].tolist()] == [probabilities(row).tolist() for row in rows]


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


def test_scores_that_are_both_one_are_in_the_order_of_their_logits() -> None:
    logits = np.array([18, 30, -3], dtype=np.float32)
    scores = probabilities(logits, multi_label=True)
    assert scores[:2].tolist() == [1.0, 1.0]
    assert [found["label"] for found in ranked(scores, ["a", "b", "c"], by=logits)] == ["b", "a", "c"]


def test_scores_are_plain_floats() -> None:
    scores = np.array([0.1, 0.2], dtype=np.float32)
    prediction = ranked(scores, ["a", "b"], by=scores)[0]
    assert type(prediction["score"]) is float


@given(hnp.arrays(np.float32, (2, 4), elements=st.floats(-80, 80, width=32)))
def test_of_many_labels_each_has_its_own_sigmoid(values: np.ndarray) -> None:
    got = probabilities(values, multi_label=True)
    assert got.dtype == np.float32
    assert got.ravel() == pytest.approx([1 / (1 + math.exp(-value)) for value in values.ravel().tolist()], rel=1e-5)


def test_large_logits_of_many_labels_do_not_overflow() -> None:
    with np.errstate(over="raise"):
        assert probabilities(np.array([1e30, -1e30], dtype=np.float32), multi_label=True).tolist() == [1.0, 0.0]


def test_answers_differ_where_a_label_crosses_the_threshold() -> None:
    one = np.array([[2.0, 1.0, -1.0], [2.0, 1.0, -1.0]], dtype=np.float32)
    other = np.array([[1.0, 2.0, -1.0], [2.0, 1.0, 0.5]], dtype=np.float32)
    single, multi = ([answers(x, multi_label=kind) for x in (one, other)] for kind in (False, True))
    assert differ(*single).tolist() == [True, False]
    assert differ(*multi).tolist() == [False, True]
    assert multi[0].tolist() == [[True, True, False]] * 2
