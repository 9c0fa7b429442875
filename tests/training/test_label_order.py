"""The order of labels: as numbers where all are, and their ranks, which words do not have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import InputError
from training import train
from training.label_order import label_order, ranks_of
from training.recipe_file import load_recipe


def test_numbers_are_in_numeric_order_and_words_in_that_of_letters() -> None:
    assert label_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert label_order(["10", "9", "b", "a"]) == ["10", "9", "a", "b"]


def test_ranks_are_in_numeric_order_and_words_have_none() -> None:
    assert ranks_of(["10", "9", "-1.5", "2"]).tolist() == [3, 2, 0, 1]
    for label in ("good", "nan", ""):
        with pytest.raises(InputError, match=rf"evaluate.ordinal: label {label!r} is no number"):
            ranks_of(["1", label])


def test_words_are_refused_before_anything_is_trained(
    tiny_run: Path, tiny_recipe: Path, context: Callable[..., Any]
) -> None:
    recipe = load_recipe(tiny_recipe, ["evaluate.ordinal=true"]).recipe
    asked = context(recipe, data=tiny_run / "data")
    with pytest.raises(InputError, match="label 'animal' is no number"):
        train.run(asked)
    assert list(asked.work.iterdir()) == []
