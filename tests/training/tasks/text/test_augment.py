"""Perturbed texts: never empty, edited within bounds, the same for the same seed."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipe.train import AugmentSettings
from training.tasks.text.augment import NEIGHBOURS, perturb

TEXTS = st.text(min_size=1, max_size=200).filter(str.strip) | st.lists(
    st.sampled_from(["cat", "Dogs", "a", "l'eau", "5", "你好", "x1"]), min_size=1, max_size=40
).map(" ".join)
RATES = st.floats(0, 0.99)
SEEDS = st.integers(0, 1000)


def edited(text: str, seed: int = 0, **settings: object) -> str:
    return perturb(text, AugmentSettings.model_validate(settings), np.random.default_rng(seed))


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row[0] = row[0], number
        for place, there in enumerate(other, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (letter != there))
    return row[-1]


@given(TEXTS, RATES, RATES, SEEDS)
def test_never_empty_and_the_same_seed_gives_the_same(text: str, words: float, letters: float, seed: int) -> None:
    found = edited(text, seed, word_rate=words, character_rate=letters)
    assert found
    assert found == found.strip()
    assert found == edited(text, seed, word_rate=words, character_rate=letters)


@given(TEXTS, RATES, SEEDS)
def test_words_are_edited_within_the_rate(text: str, rate: float, seed: int) -> None:
    found = edited(text, seed, word_rate=rate, character_rate=0)
    before, after = Counter(text.split()), Counter(found.split())
    most = int(np.ceil(rate * len(text.split())))
    assert (before - after).total() + (after - before).total() <= most
    assert set(after) <= set(before)


@given(TEXTS, RATES, SEEDS)
def test_letters_are_edited_within_the_rate(text: str, rate: float, seed: int) -> None:
    found = edited(text, seed, word_rate=0, character_rate=rate)
    letters = sum(letter.isalpha() for letter in text)
    # Two letters that change places are two edits of Levenshtein's.
    assert edit_distance(text.strip(), found) <= 2 * int(np.ceil(rate * letters))
    assert len(found.split()) == len(text.split())
    kept = [letter for letter in found if not letter.isalpha()]
    assert kept == [letter for letter in text.strip() if not letter.isalpha()]


@given(TEXTS, SEEDS)
def test_without_rates_or_without_kinds_nothing_changes(text: str, seed: int) -> None:
    assert edited(text, seed, word_rate=0, character_rate=0) == text.strip()
    assert edited(text, seed, word_edits=[], character_edits=[]) == text.strip()


TEXT = "the quick brown fox jumps over the lazy dog and runs away from it"


@pytest.mark.parametrize("kind", ["swap", "drop", "duplicate"])
def test_each_kind_of_word_edit(kind: str) -> None:
    words = TEXT.split()
    found = edited(TEXT, word_rate=1.5 / len(words), word_edits=[kind], character_rate=0).split()
    difference = len(found) - len(words)
    match kind:
        case "swap":
            assert sorted(found) == sorted(words)
            assert 2 <= sum(one != other for one, other in zip(found, words, strict=True)) <= 4
        case "drop":
            assert difference in (-1, -2)
            assert not Counter(found) - Counter(words)
        case _:
            assert difference in (1, 2)
            assert set(found) == set(words)
            assert sum(one == other for one, other in pairwise(found)) == difference


@pytest.mark.parametrize("kind", ["swap", "drop", "duplicate", "typo"])
def test_each_kind_of_character_edit(kind: str) -> None:
    found = edited(TEXT, word_rate=0, character_rate=0.2, character_edits=[kind])
    letters = sum(map(str.isalpha, TEXT))
    assert found != TEXT
    match kind:
        case "swap":
            assert Counter(found) == Counter(TEXT)
        case "drop":
            assert len(TEXT) - len(found) in range(5, int(0.2 * letters) + 2)
            assert not Counter(found) - Counter(TEXT)
        case "duplicate":
            assert len(found) - len(TEXT) in (int(0.2 * letters), int(0.2 * letters) + 1)
        case _:
            changed = [(one, other) for one, other in zip(TEXT, found, strict=True) if one != other]
            assert len(changed) in (int(0.2 * letters), int(0.2 * letters) + 1)
            assert all(other in NEIGHBOURS[one] for one, other in changed)


def test_the_keyboard() -> None:
    assert set(NEIGHBOURS) == set("abcdefghijklmnopqrstuvwxyz")
    assert {key: set(near) for key, near in NEIGHBOURS.items() if key in "qgpm"} == {
        "q": set("wa"),
        "g": set("fhtyvb"),
        "p": set("ol"),
        "m": set("njk"),
    }
    assert all(key in NEIGHBOURS[other] for key, near in NEIGHBOURS.items() for other in near)


def test_case_blanks_and_digits_stay() -> None:
    text = "ABC\n\n  DEF 12345"
    found = edited(text, word_rate=0, character_rate=0.9, character_edits=["typo"])
    assert found != text
    assert found.isupper()
    assert found[3:7] == "\n\n  "
    assert found.endswith(" 12345")


def test_short_texts_get_their_share() -> None:
    """A tenth of the words is edited in texts of five words.

    Each text has less than one edit.
    """
    found = [edited("one two three four five", seed, character_rate=0) for seed in range(200)]
    assert 60 <= sum(text != "one two three four five" for text in found) <= 140


@pytest.mark.parametrize("text", ["word", "x", "12:30"])
def test_the_only_word_is_kept(text: str) -> None:
    assert {edited(text, seed, word_rate=0.99, character_rate=0) for seed in range(20)} == {text}
