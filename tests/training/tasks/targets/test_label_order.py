"""The order of labels: as numbers where all are, and their ranks, which words do not have."""

import shutil
from pathlib import Path

import pytest
from tiny import Quiet

from bentune.bundle.errors import InputError
from training.pipeline.pipeline import run_stage
from training.pipeline.run_dir import RunDir
from training.recipe.file import load_recipe
from training.tasks.targets.label_order import label_order, ranks_of


def test_numbers_are_in_numeric_order_and_words_in_that_of_letters() -> None:
    assert label_order(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert label_order(["10", "9", "b", "a"]) == ["10", "9", "a", "b"]


def test_ranks_are_in_numeric_order_and_words_have_none() -> None:
    assert ranks_of(["10", "9", "-1.5", "2"]).tolist() == [3, 2, 0, 1]
    for label in ("good", "nan", ""):
        with pytest.raises(InputError, match=rf"evaluate.ordinal: label {label!r} is no number"):
            ranks_of(["1", label])


def test_words_are_refused_before_anything_is_trained(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["evaluate.ordinal=true"]).recipe
    shutil.copytree(tiny_run, tmp_path / recipe.name / tiny_run.name)
    with RunDir.open(tmp_path, recipe.name) as run:
        with pytest.raises(InputError, match="label 'animal' is no number"):
            run_stage("train", recipe, run, Quiet(), force=True)
        assert run.record("train") is not None  # what was there is untouched
