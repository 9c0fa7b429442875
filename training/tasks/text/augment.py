"""Augmentation of texts: swapped, dropped or duplicated words, and typing errors."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from training.recipe.train import AugmentSettings

WORD = re.compile(r"(\S+)(\s*)")
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

Pieces = list[tuple[str, str]]
"""Words, each with the white space after it."""


def perturb(text: str, settings: AugmentSettings, generator: np.random.Generator) -> str:
    """Edit words and letters of a text at the settings' rates.

    The kinds of edits are drawn at random. Their numbers are rate x words and rate x letters, rounded up or down at
    random, so that short texts get their share. A single word is never dropped. The result is never empty, and has no
    white space at its ends.
    """
    pieces: Pieces = WORD.findall(text)
    for edit in _drawn(settings.word_edits, settings.word_rate * len(pieces), generator):
        if len(pieces) > 1:
            WORD_EDITS[edit](pieces, generator)
    letters = [*"".join(word + blanks for word, blanks in pieces).strip()]
    places = [place for place, letter in enumerate(letters) if letter.isalpha()]
    edits = list(_drawn(settings.character_edits, settings.character_rate * len(places), generator))
    # From the end, so that an edit does not move the places of later edits.
    chosen = (
        sorted(generator.choice(places, min(len(edits), len(places)), replace=False), reverse=True) if edits else []
    )
    for place, edit in zip(chosen, edits, strict=False):
        CHARACTER_EDITS[edit](letters, int(place), generator)
    return "".join(letters)


def _drawn(kinds: Sequence[str], expected: float, generator: np.random.Generator) -> list[str]:
    number = int(expected + generator.random())
    return [kinds[kind] for kind in generator.integers(len(kinds), size=number)] if kinds else []


def _swap_words(pieces: Pieces, generator: np.random.Generator) -> None:
    place = int(generator.integers(len(pieces) - 1))
    (one, blanks), (other, more) = pieces[place : place + 2]
    pieces[place : place + 2] = [(other, blanks), (one, more)]


def _drop_word(pieces: Pieces, generator: np.random.Generator) -> None:
    del pieces[int(generator.integers(len(pieces)))]


def _duplicate_word(pieces: Pieces, generator: np.random.Generator) -> None:
    place = int(generator.integers(len(pieces)))
    pieces.insert(place, (pieces[place][0], " "))


def _swap_letters(letters: list[str], place: int, generator: np.random.Generator) -> None:  # noqa: ARG001
    if place + 1 < len(letters) and letters[place + 1].isalpha():
        letters[place : place + 2] = [letters[place + 1], letters[place]]


def _drop_letter(letters: list[str], place: int, generator: np.random.Generator) -> None:  # noqa: ARG001
    beside = [letters[near] for near in (place - 1, place + 1) if 0 <= near < len(letters)]
    if any(letter.isalpha() for letter in beside):  # a word of one letter stays
        del letters[place]


def _duplicate_letter(letters: list[str], place: int, generator: np.random.Generator) -> None:  # noqa: ARG001
    letters.insert(place, letters[place])


def _mistype(letters: list[str], place: int, generator: np.random.Generator) -> None:
    near = NEIGHBOURS.get(letters[place].lower())
    if near is not None:
        typed = near[int(generator.integers(len(near)))]
        letters[place] = typed.upper() if letters[place].isupper() else typed


def _neighbours() -> dict[str, str]:
    """Map each key to the keys beside it, and to two keys above and two below it."""
    found = {}
    for row, keys in enumerate(KEYBOARD):
        for column, key in enumerate(keys):
            places = [(row, column - 1), (row, column + 1)]
            places += [(row - 1, column), (row - 1, column + 1), (row + 1, column - 1), (row + 1, column)]
            found[key] = "".join(
                KEYBOARD[there][place]
                for there, place in places
                if 0 <= there < len(KEYBOARD) and 0 <= place < len(KEYBOARD[there])
            )
    return found


NEIGHBOURS = _neighbours()
WORD_EDITS: dict[str, Callable[[Pieces, np.random.Generator], None]] = {
    "swap": _swap_words,
    "drop": _drop_word,
    "duplicate": _duplicate_word,
}
CHARACTER_EDITS: dict[str, Callable[[list[str], int, np.random.Generator], None]] = {
    "swap": _swap_letters,
    "drop": _drop_letter,
    "duplicate": _duplicate_letter,
    "typo": _mistype,
}
