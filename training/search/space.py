"""Search space: draws of a trial's values, and their insertion into the recipe."""

import json
import math
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from typing import Any

from optuna import Trial

from training.recipe.derived import value_of
from training.recipe.recipe import Recipe
from training.recipe.search import Span


def draw(trial: Trial, key: str, span: Span, recipe: Recipe) -> Any:
    """Draw a value for `key`; a resumed trial returns its earlier value."""
    if span.choices is not None:
        # Choices are JSON, because Optuna stores plain values only, and a recipe has lists and sections.
        return json.loads(trial.suggest_categorical(key, [_json(choice) for choice in span.choices]))
    low, high = _ends(span)
    if whole(key, span, recipe):
        return trial.suggest_int(key, int(low), int(high), step=int(span.step or 1), log=span.log)
    return trial.suggest_float(key, low, high, step=span.step, log=span.log)


def own_values(recipe: Recipe) -> dict[str, Any] | None:
    """Return the recipe's values of the searched keys, in Optuna's form.

    The result is None where one of them is not in the search space.
    """
    found: dict[str, Any] = {}
    for key, span in recipe.search.values.items():
        try:
            value = value_of(recipe, key)
        except (KeyError, TypeError):
            return None
        if span.choices is not None:
            if value not in span.choices:
                return None
            found[key] = _json(value)
            continue
        low, high = _ends(span)
        if not isinstance(value, int | float) or not low <= value <= high:
            return None
        steps = (value - low) / span.step if span.step is not None else 0.0
        # (0.3 - 0.1) / 0.1 is a little less than 2.
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            return None
        found[key] = value
    return found


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Replace the recipe's values by these.

    Raises ValidationError when they do not fit together.
    """
    given = recipe.model_dump(mode="json", exclude_defaults=True)
    for key, value in values.items():
        *parents, last = key.split(".")
        place = given
        for parent in parents:
            place = place.setdefault(parent, recipe.method.model_dump() if parent == "method" else {})
        place[last] = value
    return Recipe.model_validate(given)


def whole(key: str, span: Span, recipe: Recipe) -> bool:
    """Return True when `key`, such as the batch size, takes only whole numbers."""
    low, high = _ends(span)
    taken = reduce(getitem, key.split("."), with_values(recipe, {key: low}).model_dump(mode="json"))
    return isinstance(taken, int) and isinstance(low, int) and isinstance(high, int)


def _ends(span: Span) -> tuple[int | float, int | float]:
    if span.low is None or span.high is None:
        raise TypeError("a list has no ends")
    return span.low, span.high


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
