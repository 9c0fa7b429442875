"""Values that a recipe leaves open: the value in use and its origin."""

from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

from training.recipe.compression import names_bundle
from training.recipe.method import FreezeMethod
from training.recipe.recipe import Recipe

BASE_MODEL = "from the base model"


class Derived(NamedTuple):
    """A value in use that the recipe leaves open; None where only its source has it."""

    value: Any
    origin: str


def derived(recipe: Recipe) -> dict[str, Derived]:
    """Return the value in use and its origin per key that the recipe leaves open."""
    method, found = f"from method {recipe.method.name}", dict[str, Derived]()
    if recipe.train.learning_rate is None:
        found["train.learning_rate"] = Derived(recipe.learning_rate, method)
    if isinstance(recipe.method, FreezeMethod) and recipe.method.layers is None and recipe.method.patterns is None:
        found["method.layers"] = Derived(None, BASE_MODEL)
    if recipe.distill is not None:
        if recipe.distill.max_tokens is None:
            stored = names_bundle(recipe.distill.teacher)
            found["distill.max_tokens"] = (
                Derived(None, f"from {recipe.distill.teacher}")
                if stored
                else Derived(recipe.max_tokens, "from max_tokens")
            )
        if recipe.distill.student_layers is None:
            found["distill.student_layers"] = Derived(None, BASE_MODEL)
    if recipe.prune is not None and recipe.prune.learning_rate is None:
        given = recipe.method.name == "full" and recipe.train.learning_rate is not None
        found["prune.learning_rate"] = Derived(
            recipe.prune_learning_rate, "from train.learning_rate" if given else "from method full"
        )
    if recipe.search.direction is None:
        found["search.direction"] = Derived(recipe.search.towards, f"from search.metric {recipe.search.metric}")
    return found


def value_of(recipe: Recipe, key: str) -> Any:
    """Return the value in use for a key such as `train.epochs`.

    Raises KeyError or TypeError where the recipe has no such key.
    """
    value = reduce(getitem, key.split("."), recipe.model_dump(mode="json"))
    return derived(recipe)[key].value if value is None and key in derived(recipe) else value
