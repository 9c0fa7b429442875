"""A number in training: read, split by tenths, learned in standard deviations; what is for classes is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.errors import InputError
from bentune.bundle.targets.number import Number
from training.recipe.data import ColumnNames, DataSettings
from training.recipe.file import load_recipe
from training.tasks.registry import TASKS
from training.tasks.targets.number import NumberTraining, squared_error

TARGET = NumberTraining(DataSettings(source="s", columns=ColumnNames(label="stars")))


def test_equal_numbers_are_spelled_alike_and_have_no_names() -> None:
    assert TARGET.read("4") == TARGET.read(4) == TARGET.read(4.0) == ("4.0", set())
    assert TARGET.names("4.0") == TARGET.order(["4.0"], "here") == ["stars"]
    assert TARGET.written("4.5") == 4.5
    column = TARGET.column(["4.0", "4.5"], ["stars"])
    assert (column.to_pylist(), str(column.type)) == ([4.0, 4.5], "double")
    with pytest.raises(ValueError, match="no number"):
        TARGET.read("many")


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50), st.integers(0, 99))
def test_what_is_learned_has_mean_zero_and_one_standard_deviation(numbers: list[float], seed: int) -> None:
    gold = np.array(numbers)
    if np.std(gold) < 1e-3:
        return
    target = TARGET.target(["stars"], gold)
    assert isinstance(target, Number)
    learned = TARGET.learned(gold, target)
    assert learned.mean() == pytest.approx(0, abs=1e-3)
    assert learned.std() == pytest.approx(1, abs=1e-3)
    assert target.scores(learned[:, None].astype(np.float64))[:, 0] == pytest.approx(gold, abs=1e-2 + 1e-6 * gold.std())


def test_numbers_that_are_all_the_same_cannot_be_learned() -> None:
    with pytest.raises(InputError, match="'stars' is the same number in every training row"):
        TARGET.target(["stars"], np.full(9, 4.0))


@given(st.integers(100, 300), st.floats(0.1, 0.5), st.integers(0, 99))
def test_each_tenth_of_the_rows_has_its_share(count: int, share: float, seed: int) -> None:
    gold = np.random.default_rng(seed).gamma(2, 3, count)
    drawn = TARGET.draw_gold(gold, share, seed)
    assert drawn.sum() == pytest.approx(share * count, abs=6)
    order = np.argsort(gold)
    for part in np.array_split(drawn[order], 4):
        assert part.mean() == pytest.approx(share, abs=0.15)
    assert (drawn == TARGET.draw_gold(gold, share, seed)).all()


def test_the_loss_is_the_squared_error() -> None:
    found = squared_error(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0]), {})
    assert found.item() == 2.0
    assert TARGET.loss() is squared_error


def test_validation_rows_are_measured_in_standard_deviations() -> None:
    found = TARGET.validate(np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 4.0]))
    assert tuple(found) == TARGET.validation
    assert found == pytest.approx(
        {"mean_absolute_error": 2 / 3, "root_mean_squared_error": (4 / 3) ** 0.5, "spearman": 1.0}
    )
    assert TARGET.validate(np.zeros((3, 1)), np.array([0.0, 1.0, 4.0]))["spearman"] == 0.0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"train": {"balance": "weights"}}, "train: balance: a number has no classes"),
        ({"train": {"label_smoothing": 0.1}}, "train: label_smoothing: a number has no classes"),
        ({"train": {"early_stopping": {"metric": "accuracy"}}}, "early_stopping.metric: 'accuracy' is not measured"),
        ({"search": {"metric": "macro_f1", "space": {"seed": [1, 2]}}}, "search"),
        ({"evaluate": {"ordinal": True}}, "evaluate: ordinal: a number is in order by itself"),
        (
            {"calibrate": {"temperature": True}, "data": {"source": "s", "split": {"validation": 0.1}}},
            "calibrate: temperature: a number has no probability",
        ),
        ({"distill": {"teacher": "t"}}, "only classifiers learn from a teacher"),
        ({"prune": {"kind": "magnitude"}}, "only classifiers are pruned"),
        ({"data": {"source": "s", "labels": {"a": "b"}}}, "a number has no name"),
        ({"data": {"source": "s", "multi_label": True}}, "a row has one number"),
        ({"data": {"source": "s", "doubtful_labels": "remove"}}, "requires classes"),
    ],
)
def test_what_is_for_classes_is_refused_before_anything_is_read(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    recipe = {"task": "text-regression", "model": "m", "data": {"source": "s"}} | more
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(InputError, match=words):
        load_recipe(tmp_path / "r.yaml")


def test_the_best_checkpoint_has_the_smallest_error() -> None:
    recipe = load_recipe(Path(__file__).parents[4] / "recipes/reviews-rating.yaml").recipe
    target = TASKS[recipe.task].target(recipe.data)
    assert target.kind == "number"
    assert target.best_by(recipe.train) == "mean_absolute_error"
