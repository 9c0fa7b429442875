"""The data stage's memory: what is measured, and that the generated rows have the shape they should."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.data_memory import MOST_MB, DataMemory, measure, reviews, table_of, write_reviews
from bentune.bundle.rows.read import read_rows


def test_generated_reviews_have_yelps_shape(tmp_path: Path) -> None:
    rows = list(reviews(4000))
    assert list(reviews(4000)) == rows
    lengths = np.array([len(text.split()) for text, _ in rows])
    assert lengths.mean() == pytest.approx(130, rel=0.06)
    labels = Counter(label for _, label in rows)
    assert sorted(labels) == [f"{stars} stars" for stars in range(1, 6)]
    assert min(labels.values()) > 700
    texts = [text for text, _ in rows]
    assert len(texts) - len(set(texts)) == pytest.approx(80, abs=12)
    parquet, table = write_reviews(tmp_path / "a.parquet", 300), pq.read_table(tmp_path / "a.parquet")
    assert parquet.name == "a.parquet"
    assert list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)) == list(reviews(300))
    assert [row.values["text"] for row in read_rows(write_reviews(tmp_path / "a.csv", 300))] == texts[:300]


def test_measured_runs_of_the_data_stage_make_the_table(tmp_path: Path) -> None:
    run = measure(write_reviews(tmp_path / "a.parquet", 4000), 4000, tmp_path)
    assert run.left_out["duplicate"] > 50
    assert run.left_out["nearly the same as a training row"] > 30
    assert run.kept + sum(run.left_out.values()) == run.rows == 4000
    assert run.peak_mb > 50
    found = DataMemory(runs=[run.model_copy(update={"peak_mb": peak}) for peak in (MOST_MB, MOST_MB + 1.0)])
    assert not found.bounded
    assert DataMemory(runs=found.runs[:1]).bounded
    table = table_of(found)
    assert [next(iter(column.cells)) for column in table.columns][:2] == ["parquet", "4,000"]
    assert list(table.columns[4].cells) == ["1500", "1501"]
