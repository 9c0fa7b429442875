"""Drawing values: of the recipe's own types, within their spans, the same again for a trial that goes on."""

from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from training.recipe.recipe import Recipe
from training.search.space import draw, own_values, with_values

LEAST = {"name": "n", "task": "text-classification", "model": "m", "data": {"source": "s"}}


def recipe(values: dict[str, Any], **more: Any) -> Recipe:
    return Recipe.model_validate(LEAST | more | {"search": {"values": values}})


def drawn(values: dict[str, Any], times: int = 30) -> dict[str, list[Any]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    given, study = recipe(values), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(times)]
    return {key: [draw(trial, key, span, given) for trial in trials] for key, span in given.search.values.items()}


def test_values_are_of_the_recipes_type_and_within_their_span() -> None:
    found = drawn(
        {
            "train.batch_size": {"low": 4, "high": 32, "step": 4},
            "train.epochs": {"low": 1, "high": 3},
            "train.learning_rate": {"low": 1e-6, "high": 1e-2, "log": True},
            "train.balance": ["none", "weights", {"cap": 5}],
            "method.target_modules": ["auto", ["query"]],
        }
    )
    assert set(found["train.batch_size"]) <= set(range(4, 33, 4))
    assert all(isinstance(value, float) and 1 <= value <= 3 for value in found["train.epochs"])
    assert any(not value.is_integer() for value in found["train.epochs"])
    assert sum(value < 1e-4 for value in found["train.learning_rate"]) in range(8, 23)
    assert sorted(map(str, {str(value): value for value in found["train.balance"]})) == [
        "none",
        "weights",
        "{'cap': 5}",
    ]
    assert ["query"] in found["method.target_modules"]


def test_a_trial_that_goes_on_has_the_values_that_it_had() -> None:
    given, study = recipe({"train.epochs": {"low": 1, "high": 3}}), optuna.create_study()
    span, trial = given.search.values["train.epochs"], study.ask()
    first = draw(trial, "train.epochs", span, given)
    assert draw(optuna.Trial(study, trial._trial_id), "train.epochs", span, given) == first


def test_with_values() -> None:
    given = recipe({}, method={"name": "lora", "rank": 2})
    changed = with_values(given, {"method.alpha": 4, "train.balance": {"cap": 5}, "train.augment.copies": 1, "seed": 7})
    assert (changed.method.rank, changed.method.alpha) == (2, 4)  # type: ignore[union-attr]
    assert changed.train.balance.cap == 5  # type: ignore[union-attr]
    assert (changed.train.augment.copies, changed.seed, changed.train.epochs) == (1, 7, given.train.epochs)
    assert with_values(given, {"method": "full"}).method.name == "full"
    assert with_values(recipe({}), {"method.rank": 4}).method.rank == 4  # type: ignore[union-attr]
    with pytest.raises(ValidationError):
        with_values(given, {"train.epochs": 0})


def test_the_recipes_own_values_where_they_are_among_those_searched() -> None:
    values = {"train.learning_rate": {"low": 1e-4, "high": 1e-2}, "method.rank": [8, 16]}
    assert own_values(recipe(values)) == {"train.learning_rate": 1e-3, "method.rank": "16"}
    assert own_values(recipe(values, train={"learning_rate": 0.1})) is None
    assert own_values(recipe(values | {"method.rank": [4, 8]})) is None
    assert own_values(recipe({"train.batch_size": {"low": 4, "high": 20, "step": 8}})) is None
    assert own_values(recipe({"train.batch_size": {"low": 8, "high": 24, "step": 8}})) == {"train.batch_size": 16}
    spread = {"train.warmup_ratio": {"low": 0.1, "high": 0.5, "step": 0.1}}
    assert own_values(recipe(spread, train={"warmup_ratio": 0.3})) == {"train.warmup_ratio": 0.3}
