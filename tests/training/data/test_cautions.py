"""What the rows cannot give is said in numbers, with what to do."""

from typing import Any

import pytest

from training.data.cautions import row_cautions, token_cautions
from training.pipeline.results import DataResult, TokenCoverage
from training.recipe.recipe import Recipe

ONE_LABEL, MANY = {"source": "s"}, {"source": "s", "multi_label": True, "label_separator": ";"}


def recipe(data: dict[str, Any] = ONE_LABEL, task: str = "text-classification", **more: Any) -> Recipe:
    return Recipe.model_validate({"name": "a", "task": task, "model": "m", "data": data} | more)


def result(train: dict[str, int], test: dict[str, int]) -> DataResult:
    parts = {"train": train, "test": test}
    return DataResult.model_construct(
        rows={name: sum(part.values()) for name, part in parts.items()}, rows_by_label=parts, labels=list(train)
    )


def test_labels_without_test_rows_are_named_with_their_training_rows() -> None:
    train = {"ham": 900, "spam": 800} | {f"rare{number}": 2 for number in range(7)}
    found = [*row_cautions(result(train, {"ham": 500, "spam": 400}), recipe())]
    assert found == [
        "7 of 9 labels have no test row, so nothing is known of their answers; labels and training rows: 'rare0' (2), "
        "'rare1' (2), 'rare2' (2), 'rare3' (2), 'rare4' (2) and 2 more. Add rows of them, or merge them into other "
        "labels with data.labels."
    ]
    assert [*row_cautions(result({"ham": 900, "spam": 80}, {"ham": 500, "spam": 1}), recipe())] == []


def test_a_test_set_that_is_too_small_for_the_margin() -> None:
    few = result({"a": 400, "b": 400}, {"a": 180, "b": 180})
    assert [*row_cautions(few, recipe())] == [
        "360 test rows are too few for compare.margin (1 point): a retrained version that is as good "
        "needs at least 361, and 3,262 where 5% of the answers change. Give more rows, raise data.split.test, or widen "
        "the margin."
    ]
    assert [*row_cautions(few, recipe(compare={"margin": 2}))] == []
    assert len([*row_cautions(result({"a": 9, "b": 9}, {"a": 50, "b": 50}), recipe(MANY))]) == 1


@pytest.mark.parametrize("task", ["text-regression", "image-classification"])
def test_nothing_is_said_of_a_margin_where_rows_alone_do_not_tell(task: str) -> None:
    assert [*row_cautions(result({"stars": 90}, {"stars": 10}), recipe(task=task))] == []


def coverage(**more: int) -> TokenCoverage:
    return TokenCoverage.model_validate(
        {"rows": 1000, "tokens": 100_000, "unknown": 0, "truncated": 0, "longest": 1204} | more
    )


def test_a_tokenizer_that_does_not_know_the_script() -> None:
    assert [*token_cautions(coverage(unknown=64_000), recipe())] == [
        "64% of the tokens are unknown to the base model's tokenizer, and the model learns nothing from them: choose a "
        "base model for this language and script."
    ]
    assert [*token_cautions(coverage(unknown=4_900), recipe())] == []


def test_texts_that_are_cut() -> None:
    assert [*token_cautions(coverage(truncated=470), recipe())] == [
        "47% of the training rows are longer than max_tokens (256), the longest of 1,000 has 1,204 tokens, and the "
        "rest of a text is cut off: raise max_tokens as far as the model goes, or split the texts."
    ]
    assert [*token_cautions(coverage(truncated=99), recipe())] == []


def test_labels_that_look_alike_or_like_nothing_are_told_with_their_rows() -> None:
    train = {"Good": 300, "good": 80, "5": 7, "5.0": 300, "nan": 12, "bad": 900}
    test = {"Good": 200, "good": 20, "5": 3, "5.0": 100, "nan": 3, "bad": 100}
    assert [*row_cautions(result(train, test), recipe())] == [
        "Labels look alike, with their rows: 'Good' (500), 'good' (100); '5' (10), '5.0' (400). If they are one label, "
        "set data.labels.merge to true, or give new names in data.labels.",
        "Labels read like a missing value, with their rows: 'nan' (15). If there is no label, leave these rows out of "
        "the file.",
    ]
