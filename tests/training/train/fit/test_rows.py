"""Rows that training sees: balanced and augmented by the recipe and the seed alone, every row with its own label."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from training.recipe.data import DataSettings
from training.recipe.train import AugmentSettings, Cap, TrainSettings
from training.tasks import rows as stored
from training.tasks.rows import Rows, StoredRows, joined, open_rows
from training.tasks.targets.losses import WeightedBinaryCrossEntropy, WeightedCrossEntropy, cross_entropy
from training.tasks.targets.many_labels import ManyLabelsTraining
from training.tasks.targets.one_label import OneLabelTraining
from training.tasks.text.augment import perturb
from training.train.fit.rows import TrainingRows, balanced, training_rows

DATA = DataSettings(source="s")
ONE, MANY = OneLabelTraining(DATA), ManyLabelsTraining(DATA)
SCHEMA = [("text", pa.string()), ("text_pair", pa.string()), ("label", pa.int64())]
BALANCES = st.sampled_from(["none", "weights", "oversample"]) | st.integers(1, 10).map(lambda cap: {"cap": cap})


def rows(*counts: int, pairs: bool = False) -> Rows:
    """So many rows of each label, mixed; each text says its label in every word."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    words = ["aaaa", "bbbb", "cccc", "dddd"]
    texts = [" ".join([words[label]] * 6) + f" {row}" for row, label in enumerate(labels)]
    return Rows(texts, [f"pair {text}" for text in texts] if pairs else None, labels.astype(np.int64))


def seen(given: StoredRows, seed: int = 1, **settings: Any) -> TrainingRows:
    return training_rows(given, TrainSettings.model_validate(settings), ONE, int(given.labels.max()) + 1, seed)


def all_of(found: TrainingRows) -> Rows:
    return joined(found.parts())


def test_by_default_training_sees_the_rows_as_they_are() -> None:
    given = rows(8, 2, pairs=True)
    found = seen(given)
    assert (all_of(found).texts, all_of(found).pairs) == (given.texts, given.pairs)
    assert all_of(found).labels.tolist() == given.labels.tolist()
    assert (found.perturbed, found.loss, found.weights) == (0, cross_entropy, None)


def test_weights_are_those_of_scikit_learn_and_their_mean_is_one() -> None:
    labels = rows(8, 2, 5).labels
    found = ONE.weights(labels, 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert found == pytest.approx(expected.tolist())
    assert np.array(found)[labels].mean() == pytest.approx(1)
    assert ONE.weights(np.array([0, 0, 2]), 4) == [0.75, 0.0, 1.5, 0.0]


def test_weights_and_smoothing_go_into_the_loss() -> None:
    found = seen(rows(8, 2), balance="weights", label_smoothing=0.1)
    assert isinstance(found.loss, WeightedCrossEntropy)
    assert found.loss.weights is not None
    assert found.loss.weights.tolist() == found.weights == [0.625, 2.5]
    assert found.loss.smoothing == 0.1
    assert len(found) == 10
    only = seen(rows(8, 2), label_smoothing=0.1)
    assert only.loss == WeightedCrossEntropy(None, 0.1)
    assert only.weights is None


def test_oversampling_repeats_rows_of_rare_labels_equally_often() -> None:
    given = rows(20, 7, 1)
    found = seen(given, balance="oversample")
    assert Counter(all_of(found).labels.tolist()) == {0: 20, 1: 20, 2: 20}
    times = Counter(all_of(found).texts)
    assert set(times) == set(given.texts)
    assert sorted(times[text] for text, label in zip(given.texts, given.labels, strict=True) if label == 1) == [
        *(2 for _ in range(1)),
        *(3 for _ in range(6)),
    ]


def test_a_cap_keeps_some_rows_of_each_label_drawn_by_the_seed() -> None:
    given = rows(20, 7, 1)
    found = seen(given, balance={"cap": 5})
    assert Counter(all_of(found).labels.tolist()) == {0: 5, 1: 5, 2: 1}
    assert max(Counter(all_of(found).texts).values()) == 1
    assert all_of(found).texts == all_of(seen(given, balance={"cap": 5})).texts
    assert all_of(found).texts != all_of(seen(given, seed=2, balance={"cap": 5})).texts
    assert balanced(given.labels, Cap(cap=100), 1).tolist() == list(range(28))


@settings(deadline=None)
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
    how = {"balance": balance, "augment": {"copies": copies, "word_rate": rate, "character_rate": 0}}
    given_rows = rows(*counts, pairs=pairs)
    found, again = (seen(given_rows, seed, **how) for _ in range(2))
    shown, shown_again = all_of(found), all_of(again)
    assert (shown.texts, shown.pairs) == (shown_again.texts, shown_again.pairs)
    assert shown.labels.tolist() == shown_again.labels.tolist()
    assert len(found) == len(shown.texts) == (1 + copies) * len(balanced(given_rows.labels, _model(balance), seed))
    for text, label in zip(shown.texts, shown.labels, strict=True):
        # One of seven words is the row's number; the other words give the label.
        assert text
        assert set(text.split()) - {"aaaa", "bbbb", "cccc"} <= set(map(str, range(45)))
        assert {"aaaa", "bbbb", "cccc"}.intersection(text.split()) <= {["aaaa", "bbbb", "cccc"][label]}
    if pairs:
        assert shown.pairs is not None
        assert all(shown.pairs)
        assert len(shown.pairs) == len(found)
    as_they_are = len(found) - found.perturbed
    assert set(shown.texts[:as_they_are]) <= set(given_rows.texts)


def _model(balance: Any) -> Any:
    return Cap.model_validate(balance) if isinstance(balance, dict) else balance


def test_copies_are_perturbed_and_what_oversampling_repeats_is_too() -> None:
    given_rows = rows(20, 4)
    found = seen(given_rows, balance="oversample", augment={"copies": 1, "word_rate": 0.5})
    assert len(found) == 80
    assert found.perturbed == 80 - 24
    assert sorted(all_of(found).texts[:24]) == sorted(given_rows.texts)
    changed = sum(text not in given_rows.texts for text in all_of(found).texts[24:])
    assert changed > 0.9 * 56
    assert Counter(all_of(found).labels.tolist()) == {0: 40, 1: 40}


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("balance", ["none", "oversample", {"cap": 9}])
def test_rows_of_a_file_are_what_they_are_in_memory(
    balance: Any, pairs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are the same however few of them are read at a time.

    Texts are perturbed in one run, before all pairs.
    """
    given_rows = rows(40, 13, pairs=pairs)
    none: list[str | None] = [None] * len(given_rows)
    table = {"text": given_rows.texts, "text_pair": given_rows.pairs or none, "label": given_rows.labels}
    pq.write_table(pa.table(table, pa.schema(SCHEMA)), tmp_path / "rows.parquet")
    monkeypatch.setattr(stored, "PART", 6)
    how = {"balance": balance, "augment": {"copies": 2, "word_rate": 0.4}}
    found = seen(open_rows(tmp_path / "rows.parquet"), **how)
    chosen = balanced(given_rows.labels, _model(balance), 1)
    kept, repeats = np.unique(chosen), np.delete(chosen, np.unique(chosen, return_index=True)[1])
    copied = given_rows.take(np.concatenate([repeats, np.repeat(chosen, 2)]))
    generator, edits = np.random.default_rng([1, len(copied)]), AugmentSettings.model_validate(how["augment"])
    texts, more = ([perturb(text, edits, generator) for text in some] for some in (copied.texts, copied.pairs or []))
    result = all_of(found)
    assert result.texts == given_rows.take(kept).texts + texts
    assert result.pairs == ((given_rows.take(kept).pairs or []) + more if pairs else None)
    assert result.labels.tolist() == found.labels.tolist() == [*given_rows.labels[kept], *copied.labels]
    assert all_of(found).texts == result.texts
    assert found.take(np.array([3, 0])).texts == [given_rows.texts[kept[3]], given_rows.texts[kept[0]]]


def test_the_summary_counts_rows_by_label() -> None:
    given_rows = rows(6, 2)
    found = seen(given_rows, balance="oversample", augment={"copies": 1})
    assert found.summary(["a", "b"]).model_dump() == {
        "rows": 24,
        "perturbed": 16,
        "by_label": {"given": {"a": 6, "b": 2}, "trained": {"a": 12, "b": 12}},
        "weights": None,
    }
    assert seen(given_rows, balance="weights").summary(["a", "b"]).weights == {
        "a": pytest.approx(2 / 3),
        "b": 2.0,
    }


def test_of_any_number_of_labels_those_with_one_count_as_much_as_those_without() -> None:
    marks = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]])
    given = Rows(["a a"] * 4, None, marks)
    found = training_rows(given, TrainSettings(balance="weights", label_smoothing=0.1), MANY, 4, 1)
    assert found.weights == [3.0, 1.0, 1.0, 1.0]
    assert isinstance(found.loss, WeightedBinaryCrossEntropy)
    assert found.loss.smoothing == 0.1
    assert found.summary(list("abcd")).by_label["given"] == {"a": 1, "b": 2, "c": 4, "d": 0}


def test_copies_of_rows_with_any_number_of_labels_keep_them_all() -> None:
    given = Rows([f"aaaa bbbb cccc dddd {row}" for row in range(4)], None, np.eye(4, 3, dtype=np.int64))
    found = training_rows(given, TrainSettings.model_validate({"augment": {"copies": 2}}), MANY, 3, 1)
    labels = [*given.labels.tolist(), *np.repeat(given.labels, 2, axis=0).tolist()]
    assert found.labels.tolist() == joined(found.parts()).labels.tolist() == labels
