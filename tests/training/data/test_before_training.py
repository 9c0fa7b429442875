"""What the rows alone show to be in vain is refused before training."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentune.bundle.errors import InputError
from training.data.before_training import require_measurable
from training.pipeline.layout import DataFiles
from training.recipe.recipe import Recipe


def rows(root: Path, labels: list[str], gold: list[int]) -> DataFiles:
    files = DataFiles(root)
    files.labels.write_text(json.dumps(labels))
    files.target.write_text(json.dumps({"labels": labels}))
    pq.write_table(pa.table({"label": pa.array(gold, pa.int64())}), files.test)
    return files


def recipe(**evaluate: object) -> Recipe:
    return Recipe.model_validate(
        {"name": "a", "task": "text-classification", "model": "m", "data": {"source": "s"}, "evaluate": evaluate}
    )


def test_a_test_set_on_which_no_model_can_reach_the_minimum_is_refused(tmp_path: Path) -> None:
    files = rows(tmp_path, ["ham", "spam"], [0] * 19 + [1])
    with pytest.raises(
        InputError,
        match=r"data\.split\.test: on 20 test rows even a model without an error is not shown to be better than the "
        "constant answer 'ham': give more rows, raise data.split.test, or set what is enough in evaluate.minimum",
    ):
        require_measurable(recipe(), files)
    assert require_measurable(recipe(minimum={"macro_f1": 0.4}), files) is None
    assert require_measurable(recipe(), rows(tmp_path, ["ham", "spam"], [0] * 15 + [1] * 5)) is None


def test_labels_without_the_order_that_the_recipe_asks_for_are_refused(tmp_path: Path) -> None:
    files = rows(tmp_path, ["ham", "spam"], [0, 1] * 10)
    with pytest.raises(InputError, match="ordinal"):
        require_measurable(recipe(ordinal=True), files)
