"""The data stage's memory: what it takes for each row, and that the generated rows have the shape they should."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.data_memory import MOST_MB, ROWS, DataMemory, measure, reviews, table_of, write_reviews
from service.rows import read_rows


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


def test_memory_grows_so_slowly_that_all_rows_fit(tmp_path: Path) -> None:
    """Two sizes and a line through them: what a row adds, and so what all of yelp_review_full would take."""
    few, many = (
        measure(write_reviews(tmp_path / f"{rows}.parquet", rows), rows, tmp_path) for rows in (10_000, 40_000)
    )
    a_row = (many.peak_mb - few.peak_mb) / (many.rows - few.rows)
    assert few.peak_mb + a_row * (ROWS - few.rows) < MOST_MB
    assert many.left_out["duplicate"] > 500
    assert many.left_out["nearly the same as a training row"] > 300
    assert many.kept + sum(many.left_out.values()) == many.rows
    found = DataMemory(runs=[few, many])
    assert found.bounded
    assert table_of(found).row_count == 2
