"""Checks what a recipe searches for by trying it: both ends of every span, and each value of every list."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from bentune.bundle.errors import InputError
from training.recipe.search import SEARCHABLE

_Check = Callable[[dict[str, Any]], list[str]]
_Place = Callable[[dict[str, Any], str, Any], None]


def search_problems(given: Mapping[str, Any], check: _Check, place: _Place) -> list[str]:
    """What is wrong with the searched values of a recipe as it was read, whatever else is wrong with it.

    `check` lists the problems of a recipe, `place` puts a value into it or raises InputError where there is no place.
    """
    search = given.get("search")
    values = search.get("values") if isinstance(search, Mapping) else None
    if not isinstance(values, Mapping):
        return []
    recipe = {key: value for key, value in given.items() if key != "search"}
    known = set(check(deepcopy(recipe)))
    found = [problem for key, span in values.items() for problem in _tried(str(key), span, recipe, known, check, place)]
    keys = [str(key) for key in values]
    found += [
        f"{inner}: cannot be searched together with {outer}, which it is a part of"
        for outer in keys
        for inner in keys
        if inner.startswith(f"{outer}.")
    ]
    return [f"search.values: {problem}" for problem in dict.fromkeys(found)]


def _tried(key: str, span: Any, recipe: dict[str, Any], known: set[str], check: _Check, place: _Place) -> Iterator[str]:
    ends = [span[end] for end in ("low", "high") if end in span] if isinstance(span, Mapping) else []
    values = span if isinstance(span, list) else ends
    unknown = False
    for value in values:
        changed = deepcopy(recipe)
        try:
            place(changed, key, value)
        except InputError as error:
            yield str(error)
            return
        wrong = [problem for problem in check(changed) if problem not in known]
        yield from wrong
        unknown = unknown or any("no such key" in problem for problem in wrong)
    if not unknown and key.partition(".")[0] not in SEARCHABLE:
        yield f"{key}: cannot be searched, for trials share their rows and end with the training; valid: " + ", ".join(
            SEARCHABLE
        )
