"""The rows of a search: a share of each label's training rows is set apart, and no test row is among them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentune.bundle.errors import InputError
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.search.rows import search_rows
from training.tasks.rows import label_column


def recipe(share: float, seed: int = 1, **data: Any) -> Recipe:
    given = {"name": "n", "task": "text-classification", "model": "m", "seed": seed}
    return Recipe.model_validate(given | {"data": {"source": "s"} | data, "search": {"validation": share}})


def test_a_share_of_each_label_is_set_apart_of_the_training_rows_alone(tiny_run: Path, tmp_path: Path) -> None:
    data, counts = search_rows(recipe(0.25), tiny_run / "data", tmp_path / "rows")
    assert data == tmp_path / "rows"
    assert sorted(path.name for path in data.iterdir()) == [
        "labels.json",
        "target.json",
        "train.parquet",
        "validation.parquet",
    ]
    train, validation = (pq.read_table(data / f"{name}.parquet").to_pylist() for name in ("train", "validation"))
    assert counts == {"train": len(train), "validation": len(validation)} == {"train": 180, "validation": 60}
    assert Counter(row["label"] for row in validation) == {0: 20, 1: 20, 2: 20}
    given = pq.read_table(tiny_run / "data/train.parquet").to_pylist()
    assert sorted(row["origin"] for row in train + validation) == sorted(row["origin"] for row in given)


def test_the_seed_decides(tiny_run: Path, tmp_path: Path) -> None:
    def apart(seed: int, name: str) -> list[str]:
        data, _ = search_rows(recipe(0.2, seed), tiny_run / "data", tmp_path / name)
        return pq.read_table(data / "validation.parquet")["origin"].to_pylist()

    assert apart(1, "one") == apart(1, "again")
    assert apart(1, "one") != apart(2, "other")


def test_the_data_stages_own_validation_rows_are_taken(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    for name in ("train", "validation"):
        pq.write_table(pq.read_table(tiny_run / "data/train.parquet").slice(0, 10), tmp_path / f"{name}.parquet")
    found, counts = search_rows(load_recipe(tiny_recipe).recipe, tmp_path, tmp_path / "rows")
    assert (found, counts) == (tmp_path, {"train": 10, "validation": 10})
    assert not (tmp_path / "rows").exists()


def test_a_label_keeps_a_row_to_train_on_and_too_few_rows_are_refused(tmp_path: Path) -> None:
    labels = [0, 1, 1, 2, 2, 2, 2]
    pq.write_table(pa.table({"label": labels}), tmp_path / "train.parquet")
    (tmp_path / "labels.json").write_text('["a", "b", "c"]')
    (tmp_path / "target.json").write_text('{"labels": ["a", "b", "c"]}')
    data, counts = search_rows(recipe(0.9), tmp_path, tmp_path / "rows")
    assert counts == {"train": 3, "validation": 4}
    assert sorted(pq.read_table(data / "train.parquet")["label"].to_pylist()) == [0, 1, 2]
    with pytest.raises(InputError, match="search.validation: a share of 0.01 of 7 training rows leaves one set empty"):
        search_rows(recipe(0.01), tmp_path, tmp_path / "rows")


def test_of_any_number_of_labels_each_has_its_share_set_apart(tmp_path: Path) -> None:
    marks = [[int(row % 2 == 0), int(row % 10 == 0), int(row % 3 == 0)] for row in range(120)]
    column = pa.array(marks, pa.list_(pa.int8(), 3))
    pq.write_table(pa.table({"label": column}), tmp_path / "train.parquet")
    (tmp_path / "labels.json").write_text('["a", "b", "c"]')
    (tmp_path / "target.json").write_text('{"labels": ["a", "b", "c"]}')
    data, _ = search_rows(recipe(0.25, multi_label=True), tmp_path, tmp_path / "rows")
    apart = label_column(pq.read_table(data / "validation.parquet"))
    assert apart.sum(axis=0).tolist() == pytest.approx([15, 3, 10], abs=1)
    assert label_column(pq.read_table(data / "train.parquet")).sum(axis=0).tolist() == pytest.approx([45, 9, 30], abs=1)
