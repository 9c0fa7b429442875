"""Near duplicates: how alike two texts are said to be, and which of those that are alike is kept."""

import random
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.seen_rows import row_key
from training.data.duplicates.near import NO_ROW, PERMUTATIONS, Near, _banding, find_near, sketch, words_of
from training.data.reading.pool import CheckedRow, Pool, PoolWriter
from training.data.reading.reading import row_key_with_label
from training.recipe.data import DataSettings
from training.tasks.targets.one_label import OneLabelTraining


def pool_of(folder: Path, rows: Sequence[tuple[str, str]], pairs: Sequence[str] | None = None) -> Pool:
    with PoolWriter(folder / "pool.parquet", OneLabelTraining(DataSettings(source="s"))) as writer:
        for number, (text, label) in enumerate(rows):
            pair = None if pairs is None else pairs[number]
            key = row_key_with_label(text, pair or "", label)
            writer.add(CheckedRow(text, pair, label, f"row {number}", None, key, row_key(text, pair), 0))
        return writer.close()


def near(pool: Pool, threshold: float = 0.8, locked: Sequence[int] = ()) -> Near:
    """With the rows in their order as that of importance."""
    mask = np.zeros(len(pool), dtype=np.bool_)
    mask[list(locked)] = True
    sketches = sketch(pool, np.arange(len(pool)), threshold, lambda steps: None)
    return find_near(pool, sketches, threshold, mask)


def words(generator: random.Random, count: int) -> list[str]:
    return ["".join(generator.choices(string.ascii_lowercase, k=6)) for _ in range(count)]


def changed(text: list[str], places: Sequence[int]) -> list[str]:
    return [f"other{place}" if place in places else word for place, word in enumerate(text)]


def shingles(text: list[str]) -> set[tuple[str, ...]]:
    return {tuple(text[start : start + 3]) for start in range(len(text) - 2)}


def test_the_similarity_is_the_jaccard_index_of_shingles_within_its_error(tmp_path: Path) -> None:
    generator = random.Random(1)
    texts, exact = [], []
    for number in range(200):
        text = words(generator, 60)
        other = changed(text, generator.sample(range(60), number % 8))
        texts += [text, other]
        one, two = shingles(text), shingles(other)
        exact.append(len(one & two) / len(one | two))
    pool = pool_of(tmp_path, [(" ".join(text), "a") for text in texts])
    sketches = sketch(pool, np.arange(len(pool)), 0.8, lambda steps: None)
    found = sketches.similarity(np.arange(0, 400, 2), np.arange(1, 400, 2))
    errors = found - np.array(exact)
    deviation = np.sqrt(np.array(exact) * (1 - np.array(exact)) / PERMUTATIONS)
    assert abs(errors.mean()) < 0.01
    assert (np.abs(errors) <= 4.5 * deviation + 0.004).all()


def test_nearly_all_pairs_above_the_threshold_are_found_and_none_far_below(tmp_path: Path) -> None:
    generator = random.Random(2)
    rows = []
    for number in range(300):
        text = words(generator, 100)
        # Two changed words leave 92 of 104 shingles, 0.88; eight leave 74 of 122, 0.61.
        rows += [(" ".join(text), "a"), (" ".join(changed(text, [20, 70] if number < 150 else range(5, 95, 12))), "a")]
    found = near(pool_of(tmp_path, rows))
    left_out = found.kept[1::2] != NO_ROW
    assert left_out[:150].mean() > 0.95
    assert not left_out[150:].any()
    assert (found.kept[::2] == NO_ROW).all()
    assert (found.kept[1::2][left_out] == np.arange(0, 600, 2)[left_out]).all()


def test_case_and_punctuation_make_no_difference_and_other_labels_are_only_shown(tmp_path: Path) -> None:
    rows = [
        ("The soup was cold, and nobody cared!", "bad"),
        ("the soup was cold and nobody cared", "bad"),
        ("The soup was cold (and nobody cared)", "good"),
        ("!!!", "bad"),
        ("???", "bad"),
        ("今日は天気がいいですね。", "good"),
        ("今日は天気がいいですね!", "good"),
        ("Too loud", "bad"),
        ("Too loud!", "bad"),
    ]
    found = near(pool_of(tmp_path, rows))
    assert found.kept.tolist() == [NO_ROW, 0, NO_ROW, NO_ROW, NO_ROW, NO_ROW, 5, NO_ROW, 7]
    assert found.similarity[[1, 6, 8]].tolist() == [1, 1, 1]
    # Both rows of a contradiction stay, and it is reported for rows that stay.
    assert found.contradicts.tolist() == [NO_ROW] * 2 + [0] + [NO_ROW] * 6


def test_pairs_are_alike_in_both_texts(tmp_path: Path) -> None:
    """A long premise that many questions share does not make them one."""
    generator = random.Random(3)
    premise = " ".join(words(generator, 200))
    pairs = ["does it rain today", "is the fish raw", "is the fish raw?", "does it rain today"]
    rows = [(premise, "a")] * 3 + [(" ".join(words(generator, 200)), "a")]
    assert near(pool_of(tmp_path, rows, pairs)).kept.tolist() == [NO_ROW, NO_ROW, 1, NO_ROW]


def test_a_row_is_left_out_for_one_that_is_kept_and_not_along_a_chain(tmp_path: Path) -> None:
    generator = random.Random(4)
    first = words(generator, 100)
    second = changed(first, [10, 30])
    third = changed(second, [50, 70])
    rows = [(" ".join(text), "a") for text in (first, second, third)]
    # The third is like the second alone, which is gone, and so it stays: 0.88 to the second, 0.79 to the first.
    assert near(pool_of(tmp_path, rows), 0.84).kept.tolist() == [NO_ROW, 0, NO_ROW]
    assert near(pool_of(tmp_path, rows), 0.84, locked=[1]).kept.tolist() == [NO_ROW, NO_ROW, 1]
    assert near(pool_of(tmp_path, rows), 0.84, locked=[0, 1, 2]).kept.tolist() == [NO_ROW] * 3


def test_thousands_of_copies_of_one_template_cost_no_more_than_others(tmp_path: Path) -> None:
    template = " ".join(words(random.Random(5), 60))
    rows = [(f"{template} {number}", "a") for number in range(3000)]
    found = near(pool_of(tmp_path, rows))
    assert (found.kept[1:] == 0).all()
    assert found.kept[0] == NO_ROW


TEXT = st.lists(st.sampled_from("red blue green pink teal grey".split()), min_size=1, max_size=7).map(" ".join)


@examples(60, fixtures=True)
@given(rows=st.lists(st.tuples(TEXT, st.sampled_from("ab")), min_size=1, max_size=14), threshold=st.just(1.0))
def test_at_a_threshold_of_one_it_is_the_same_set_of_shingles(
    rows: list[tuple[str, str]], threshold: float, tmp_path: Path
) -> None:
    found = near(pool_of(tmp_path, rows), threshold)
    seen: dict[tuple[object, str], int] = {}
    for number, (text, label) in enumerate(rows):
        parts = text.split()
        key = (frozenset(shingles(parts) or {tuple(parts)}), label)
        assert found.kept[number] == seen.setdefault(key, number) if key in seen else found.kept[number] == NO_ROW
        seen.setdefault(key, number)


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    bands, size = _banding(threshold)
    assert bands * size <= PERMUTATIONS
    assert 1 - (1 - threshold**size) ** bands >= 0.95


def test_words() -> None:
    assert words_of("Don't STOP, été!") == [b"don", b"t", b"stop", "été".encode()]
    assert words_of("snake_case 42") == [b"snake_case", b"42"]
    assert words_of("天気 ok") == ["天".encode(), "気".encode(), b"ok"]
    assert words_of("?!") == words_of("…") == []
