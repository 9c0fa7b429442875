"""What training sees: balanced and augmented by the recipe and the seed alone, every row with its own label."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from training.loss import WeightedBinaryCrossEntropy, WeightedCrossEntropy, cross_entropy
from training.rows import Rows
from training.rows_settings import Cap
from training.train_settings import TrainSettings
from training.training_rows import TrainingRows, balanced, label_weights, training_rows

BALANCES = st.sampled_from(["none", "weights", "oversample"]) | st.integers(1, 10).map(lambda cap: {"cap": cap})


def rows(*counts: int, pairs: bool = False) -> Rows:
    """So many rows of each label, mixed; each text says its label in every word."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    words = ["aaaa", "bbbb", "cccc", "dddd"]
    texts = [" ".join([words[label]] * 6) + f" {row}" for row, label in enumerate(labels)]
    return Rows(texts, [f"pair {text}" for text in texts] if pairs else None, labels.astype(np.int64))


def seen(given: Rows, seed: int = 1, **settings: Any) -> TrainingRows:
    return training_rows(given, TrainSettings.model_validate(settings), int(given.labels.max()) + 1, seed)


def test_by_default_training_sees_the_rows_as_they_are() -> None:
    given = rows(8, 2, pairs=True)
    found = seen(given)
    assert (found.rows.texts, found.rows.pairs) == (given.texts, given.pairs)
    assert found.rows.labels.tolist() == given.labels.tolist()
    assert (found.perturbed, found.loss, found.weights) == (0, cross_entropy, None)


def test_weights_are_those_of_scikit_learn_and_their_mean_is_one() -> None:
    labels = rows(8, 2, 5).labels
    found = label_weights(labels, 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert found == pytest.approx(expected.tolist())
    assert np.array(found)[labels].mean() == pytest.approx(1)
    assert label_weights(np.array([0, 0, 2]), 4) == [0.75, 0.0, 1.5, 0.0]


def test_weights_and_smoothing_go_into_the_loss() -> None:
    found = seen(rows(8, 2), balance="weights", label_smoothing=0.1)
    assert isinstance(found.loss, WeightedCrossEntropy)
    assert found.loss.weights is not None
    assert found.loss.weights.tolist() == found.weights == [0.625, 2.5]
    assert found.loss.smoothing == 0.1
    assert len(found.rows) == 10
    only = seen(rows(8, 2), label_smoothing=0.1)
    assert only.loss == WeightedCrossEntropy(None, 0.1)
    assert only.weights is None


def test_oversampling_repeats_rows_of_rare_labels_equally_often() -> None:
    given = rows(20, 7, 1)
    found = seen(given, balance="oversample")
    assert Counter(found.rows.labels.tolist()) == {0: 20, 1: 20, 2: 20}
    times = Counter(found.rows.texts)
    assert set(times) == set(given.texts)
    assert sorted(times[text] for text, label in zip(given.texts, given.labels, strict=True) if label == 1) == [
        *(2 for _ in range(1)),
        *(3 for _ in range(6)),
    ]


def test_a_cap_keeps_some_rows_of_each_label_drawn_by_the_seed() -> None:
    given = rows(20, 7, 1)
    found = seen(given, balance={"cap": 5})
    assert Counter(found.rows.labels.tolist()) == {0: 5, 1: 5, 2: 1}
    assert max(Counter(found.rows.texts).values()) == 1
    assert found.rows.texts == seen(given, balance={"cap": 5}).rows.texts
    assert found.rows.texts != seen(given, seed=2, balance={"cap": 5}).rows.texts
    assert balanced(given.labels, Cap(cap=100), 1).tolist() == list(range(28))


@given(
    st.tuples(*[st.integers(1, 15)] * 3),
    BALANCES,
    st.integers(0, 3),
    st.floats(0, 0.9),
    st.integers(0, 99),
    st.booleans(),
)
def test_labels_are_kept_and_the_same_seed_gives_the_same_rows(
    counts: tuple[int, int, int], balance: Any, copies: int, rate: float, seed: int, pairs: bool
) -> None:
    settings = {"balance": balance, "augment": {"copies": copies, "word_rate": rate, "character_rate": 0}}
    given_rows = rows(*counts, pairs=pairs)
    found, again = (seen(given_rows, seed, **settings) for _ in range(2))
    assert (found.rows.texts, found.rows.pairs) == (again.rows.texts, again.rows.pairs)
    assert found.rows.labels.tolist() == again.rows.labels.tolist()
    assert (
        len(found.rows)
        == len(found.rows.texts)
        == (1 + copies) * len(balanced(given_rows.labels, _model(balance), seed))
    )
    for text, label in zip(found.rows.texts, found.rows.labels, strict=True):
        # Of seven words one is the row's number; the others say the label.
        assert text
        assert set(text.split()) - {"aaaa", "bbbb", "cccc"} <= set(map(str, range(45)))
        assert {"aaaa", "bbbb", "cccc"}.intersection(text.split()) <= {["aaaa", "bbbb", "cccc"][label]}
    if pairs:
        assert found.rows.pairs is not None
        assert all(found.rows.pairs)
        assert len(found.rows.pairs) == len(found.rows)
    as_they_are = len(found.rows) - found.perturbed
    assert set(found.rows.texts[:as_they_are]) <= set(given_rows.texts)


def _model(balance: Any) -> Any:
    return Cap.model_validate(balance) if isinstance(balance, dict) else balance


def test_copies_are_perturbed_and_what_oversampling_repeats_is_too() -> None:
    given_rows = rows(20, 4)
    found = seen(given_rows, balance="oversample", augment={"copies": 1, "word_rate": 0.5})
    assert len(found.rows) == 80
    assert found.perturbed == 80 - 24
    assert sorted(found.rows.texts[:24]) == sorted(given_rows.texts)
    changed = sum(text not in given_rows.texts for text in found.rows.texts[24:])
    assert changed > 0.9 * 56
    assert Counter(found.rows.labels.tolist()) == {0: 40, 1: 40}


def test_the_summary_counts_rows_by_label() -> None:
    given_rows = rows(6, 2)
    found = seen(given_rows, balance="oversample", augment={"copies": 1})
    assert found.summary(given_rows, ["a", "b"]) == {
        "rows": 24,
        "perturbed": 16,
        "by_label": {"given": {"a": 6, "b": 2}, "trained": {"a": 12, "b": 12}},
        "weights": None,
    }
    assert seen(given_rows, balance="weights").summary(given_rows, ["a", "b"])["weights"] == {
        "a": pytest.approx(2 / 3),
        "b": 2.0,
    }


def test_of_any_number_of_labels_those_with_one_count_as_much_as_those_without() -> None:
    marks = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
    given = Rows(["a a"] * 4, None, marks)
    found = training_rows(given, TrainSettings(balance="weights", label_smoothing=0.1), 4, 1)
    assert found.weights == [3.0, 1.0, 1.0, 1.0]
    assert isinstance(found.loss, WeightedBinaryCrossEntropy)
    assert found.loss.smoothing == 0.1
    assert found.summary(given, list("abcd"))["by_label"]["given"] == {"a": 1, "b": 2, "c": 4, "d": 0}


def test_copies_of_rows_with_any_number_of_labels_keep_them_all() -> None:
    given = Rows([f"aaaa bbbb cccc dddd {row}" for row in range(4)], None, np.eye(4, 3, dtype=np.int64))
    found = training_rows(given, TrainSettings.model_validate({"augment": {"copies": 2}}), 3, 1)
    assert found.rows.labels.tolist() == [*given.labels.tolist(), *np.repeat(given.labels, 2, axis=0).tolist()]
