"""The recipe's model: what it takes, what it fills in, what it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from training.recipe.data import label_text
from training.recipe.method import FullMethod, LoraMethod
from training.recipe.recipe import Recipe
from training.tasks.registry import target_of

LEAST = {"name": "reviews", "task": "text-classification", "model": "m", "data": {"source": "rows.csv"}}


def recipe(**more: Any) -> Recipe:
    return Recipe.model_validate(LEAST | more)


def refused(**more: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        recipe(**more)
    (problem,) = caught.value.errors()
    return ".".join(map(str, problem["loc"])) + ": " + problem["msg"]


def test_task_model_and_data_are_all_that_must_be_given() -> None:
    result = recipe()
    assert result.method == LoraMethod(name="lora", rank=16, alpha=32, dropout=0.05, target_modules="auto")
    assert result.data.columns.model_dump() == {
        "text": "text",
        "text_pair": None,
        "label": "label",
        "image": "image",
    }
    assert (result.data.split.test, result.data.split.validation, result.data.invalid_rows) == (0.2, 0.0, "error")
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"name": "reviews"})
    assert [problem["loc"] for problem in caught.value.errors()] == [("task",), ("model",), ("data",)]


def test_each_method_has_its_own_learning_rate_unless_one_is_given() -> None:
    assert recipe(method="full").learning_rate == 5e-5
    assert recipe(method="lora").learning_rate == 1e-3
    assert recipe(method="full", train={"learning_rate": 0.25}).learning_rate == 0.25


def test_a_method_is_a_name_or_a_section() -> None:
    assert recipe(method="full").method == FullMethod(name="full")
    assert recipe(method={"name": "lora", "rank": 4}).method == LoraMethod(name="lora", rank=4)
    assert "rank" in refused(method={"name": "full", "rank": 4})


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"data": {"source": ""}}, "data.source"),
        ({"model": ""}, "model"),
        ({"name": "Reviews!"}, "name"),
        ({"task": "translation"}, "task"),
        ({"max_tokens": 3}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"data": {"source": "s", "split": {"test": 0.0}}}, "data.split"),
        ({"data": {"source": "s", "split": {"test": 1.0}}}, "data.split"),
        ({"data": {"source": "s", "split": {"validation": 1.0}}}, "data.split.validation"),
        ({"data": {"source": "s", "rows": {"train": 0}}}, "data.rows.train"),
        ({"data": {"source": "s", "labels": {"a": " "}}}, "data.labels.a"),
        ({"data": {"source": "s", "labels": {"a": True}}}, "data.labels.a"),
        ({"data": {"source": "s", "labels": {"a": None}}}, "data.labels.a"),
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"epochs": float("inf")}}, "train.epochs"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate"),
        ({"train": {"warmup_ratio": 1}}, "train.warmup_ratio"),
        ({"evaluate": {"confidence": 1}}, "evaluate.confidence"),
        ({"verify": {"merge_tolerance": 0}}, "verify.merge_tolerance"),
        ({"verify": {"merge_tolerance": float("inf")}}, "verify.merge_tolerance"),
        ({"method": {"name": "lora", "rank": 0}}, "method.lora.rank"),
    ],
)
def test_values_out_of_range(more: dict[str, Any], key: str) -> None:
    assert refused(**more).startswith(key + ": ")


def test_an_empty_list_of_target_modules_is_refused() -> None:
    with pytest.raises(ValidationError):
        recipe(method={"name": "lora", "target_modules": []})


@pytest.mark.parametrize("columns", [{"text": "a", "label": "a"}, {"text": "a", "text_pair": "a"}])
def test_one_column_cannot_be_two_things(columns: dict[str, str]) -> None:
    assert "'a' is given twice" in refused(data={"source": "s", "columns": columns})


def test_nothing_can_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        recipe().seed = 1


@pytest.mark.parametrize(
    ("given", "text"), [(5, "5"), (5.0, "5"), (5.5, "5.5"), (" 5 ", "5"), (-1.0, "-1"), ("5.0", "5.0"), ("a b", "a b")]
)
def test_a_number_is_the_label_that_its_digits_are(given: object, text: str) -> None:
    assert label_text(given) == text


def test_labels_that_are_numbers_in_yaml_are_texts() -> None:
    assert recipe(data={"source": "s", "labels": {1: 2, 3.0: "three", "a": " b "}}).data.labels == {
        "1": "2",
        "3": "three",
        "a": "b",
    }


def test_a_step_must_divide_into_its_parts() -> None:
    assert recipe(train={"batch_size": 12, "accumulation": 3}).train.accumulation == 3
    assert "a batch_size of 16 does not divide into 3 equal parts" in refused(train={"accumulation": 3})


def test_the_best_checkpoint_is_by_what_training_stops_by() -> None:
    for stops, best_by in (({}, "accuracy"), ({"early_stopping": {"metric": "log_loss"}}, "log_loss")):
        given = recipe(train=stops)
        assert target_of(given).best_by(given.train) == best_by


@pytest.mark.parametrize(
    ("minimum", "problem"),
    [
        ({"bleu": 0.5}, "minimum: 'bleu' is not measured here; the metrics are accuracy, "),
        ({"accuracy": 80}, "minimum: accuracy is at most 1, and never reaches 80"),
        ({"accuracy": float("nan")}, "minimum.accuracy: Input should be a finite number"),
        ({"log_loss": -1}, "minimum: log_loss is at least 0"),
        ({"mean_absolute_error": 1}, "minimum: mean_absolute_error is of labels in order: set evaluate.ordinal too"),
    ],
)
def test_a_minimum_that_cannot_be_reached_or_measured(minimum: dict[str, float], problem: str) -> None:
    assert problem in refused(evaluate={"minimum": minimum})
