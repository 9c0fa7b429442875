"""Values that are used where a recipe leaves them open, as `bentune recipe explain` shows them."""

from pathlib import Path
from typing import Any

import pytest

from training.recipe.derived import value_of
from training.recipe.file import explain, load_recipe
from training.recipe.method import METHODS

LEAST = "task: text-classification\nmodel: m\ndata: {source: rows.csv}\n"


def explained(tmp_path: Path, *overrides: str) -> dict[str, tuple[Any, str]]:
    (tmp_path / "a.yaml").write_text(LEAST)
    return {row.key: (row.value, row.origin) for row in explain(load_recipe(tmp_path / "a.yaml", overrides))}


@pytest.mark.parametrize("method", METHODS)
def test_the_learning_rate_is_the_methods(tmp_path: Path, method: str) -> None:
    found = explained(tmp_path, f"method={method}")
    assert found["train.learning_rate"] == (METHODS[method].default_learning_rate, f"from method {method}")
    given = explained(tmp_path, f"method={method}", "train.learning_rate=0.25")
    assert given["train.learning_rate"] == (0.25, "--set")


@pytest.mark.parametrize(
    ("overrides", "value", "origin"),
    [
        (["method=lora", "train.learning_rate=0.25"], 5e-5, "from method full"),
        (["method=full"], 5e-5, "from method full"),
        (["method=full", "train.learning_rate=0.25"], 0.25, "from train.learning_rate"),
        (["method=full", "prune.learning_rate=0.125"], 0.125, "--set"),
    ],
)
def test_after_pruning_every_weight_is_tuned(tmp_path: Path, overrides: list[str], value: float, origin: str) -> None:
    assert explained(tmp_path, "prune.amount=0.5", *overrides)["prune.learning_rate"] == (value, origin)


def test_a_teacher_reads_as_far_as_its_bundle_or_as_we_do(tmp_path: Path) -> None:
    for teacher in ("some/model", "package:here/model"):
        found = explained(tmp_path, f"distill.teacher={teacher}", "max_tokens=77")
        assert found["distill.max_tokens"] == (77, "from max_tokens")
    found = explained(tmp_path, "distill.teacher=large:1")
    assert found["distill.max_tokens"] == (None, "from large:1")
    assert found["distill.student_layers"] == (None, "from the base model")
    assert explained(tmp_path, "distill.teacher=large:1", "distill.max_tokens=9")["distill.max_tokens"] == (9, "--set")


def test_the_layers_to_freeze_are_those_of_the_base_model_unless_parts_are_named(tmp_path: Path) -> None:
    assert explained(tmp_path, "method=freeze")["method.layers"] == (None, "from the base model")
    assert explained(tmp_path, "method=freeze", "method.patterns=[a]")["method.layers"] == (None, "default")
    assert explained(tmp_path, "method=freeze", "method.layers=0")["method.layers"] == (0, "--set")


def test_a_search_goes_the_way_of_its_metric(tmp_path: Path) -> None:
    assert explained(tmp_path)["search.direction"] == ("maximize", "from search.metric accuracy")
    assert explained(tmp_path, "search.metric=loss")["search.direction"] == ("minimize", "from search.metric loss")


def test_values_are_looked_up_as_they_are_used(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(LEAST)
    recipe = load_recipe(tmp_path / "a.yaml", ["method=head", "train.epochs=2"]).recipe
    assert (value_of(recipe, "train.learning_rate"), value_of(recipe, "train.epochs")) == (1e-2, 2.0)
    assert value_of(recipe, "data.rows.train") is None
    with pytest.raises(KeyError):
        value_of(recipe, "train.epoch")
