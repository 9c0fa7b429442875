"""The values that a recipe searches are checked when it is read: every problem at once, with the nearest name."""

from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from training.recipe.file import explain, load_recipe
from training.recipe.search import SEARCHABLE

LEAST = "task: text-classification\nmodel: m\ndata: {source: rows.csv}\n"


def problems(tmp_path: Path, values: str, more: str = "") -> list[str]:
    path = tmp_path / "r.yaml"
    path.write_text(f"{LEAST}{more}search: {{values: {values}}}\n")
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        LEAST
        + "search:\n  trials: 3\n  values:\n    train.learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"
        + "    method.rank: [4, 8]\n    train.epochs: {low: 1, high: 3, step: 1}\n    train.balance: [none, {cap: 5}]\n"
        + "    method.target_modules: [auto, [query, value]]\n"
    )
    loaded = load_recipe(path)
    found = {row.key: row.value for row in explain(loaded)}
    assert found["search.trials"] == 3
    assert found["search.metric"] == "accuracy"
    assert found["search.values"] == {
        "train.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        "method.rank": [4, 8],
        "train.epochs": {"low": 1, "high": 3, "step": 1},
        "train.balance": ["none", {"cap": 5}],
        "method.target_modules": ["auto", ["query", "value"]],
    }
    assert loaded.recipe.search.towards == "maximize"


def test_every_key_and_both_ends_are_tried(tmp_path: Path) -> None:
    values = (
        "{train.learning_rat: [1], trian.epochs: [1], train.learning_rate: {low: 0, high: 1.5}, "
        "method.rank: [4, 0, x], train.warmup_ratio: {low: 0.5, high: 1}, train.epochs.most: [1], "
        "data.split.test: [0.2, 0.3], method..rank: [1]}"
    )
    assert problems(tmp_path, values, "seeds: 3\n") == [
        "seeds: no such key; did you mean `seed`?",
        "search.values: train.learning_rat: no such key; did you mean `learning_rate`?",
        "search.values: trian: no such key; did you mean `train`?",
        "search.values: train.learning_rate: Input should be greater than 0, got '0'",
        "search.values: method.rank: Input should be greater than or equal to 1, got '0'",
        "search.values: method.rank: Input should be a valid integer, got 'x'",
        "search.values: train.warmup_ratio: Input should be less than 1, got '1'",
        "search.values: train.epochs: Input should be a valid number, got \"{'most': 1}\"",
        "search.values: data.split.test: cannot be searched, for trials share their rows and end with the training; "
        "valid: model, max_tokens, seed, method, train",
        "search.values: 'method..rank': write the keys of the recipe with a dot between them, for example train.epochs",
    ]


def test_a_key_and_a_part_of_it(tmp_path: Path) -> None:
    assert problems(tmp_path, "{method: [full, lora], method.rank: [4, 8]}") == [
        "search.values: method.rank: cannot be searched together with method, which it is a part of"
    ]


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("{low: 1}", "give `low` and `high`, or a list of values"),
        ("{low: 3, high: 3}", "low (3) must be below high (3)"),
        ("{low: 1, high: 3, choices: [1]}", "give a list, or `low` and `high`, and not both"),
        ("{low: 0, high: 3, log: true}", "with `log`, low must be above 0, and there is no step"),
        ("{low: 1, high: 3, log: true, step: 1}", "with `log`, low must be above 0, and there is no step"),
    ],
)
def test_a_span_that_is_none(span: str, message: str, tmp_path: Path) -> None:
    assert f"search.values.train.weight_decay: {message}" in problems(tmp_path, f"{{train.weight_decay: {span}}}")


def test_a_misspelt_part_of_a_span_has_its_nearest_name(tmp_path: Path) -> None:
    found = problems(tmp_path, "{train.weight_decay: {low: 1, hihg: 3}}")
    assert "search.values.train.weight_decay.hihg: no such key; did you mean `high`?" in found


@pytest.mark.parametrize("values", ["3", "[1]", "{train.epochs: 3}", "{train.epochs: []}", "{train.epochs: {}}"])
def test_what_is_no_span(values: str, tmp_path: Path) -> None:
    assert all(line.startswith("search.values") for line in problems(tmp_path, values))


def test_what_can_be_searched_is_what_training_of_a_whole_model_reads() -> None:
    from training.pipeline.pipeline import STAGES

    (train,) = (stage for stage in STAGES if stage.name == "train")
    assert set(SEARCHABLE) == set(train.keys) - {"task", "parent", "distill", "prune"}
