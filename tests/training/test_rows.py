"""Rows as the data stage wrote them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.rows import read_rows


def write(path: Path, pairs: list[str | None]) -> Path:
    table = {
        "text": [f"text {row}" for row in range(len(pairs))],
        "text_pair": pa.array(pairs, pa.string()),
        "label": range(len(pairs)),
    }
    pq.write_table(pa.table(table), path)
    return path


def test_texts_without_a_second_one(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "rows.parquet", [None, None, None]))
    assert (rows.texts, rows.pairs, len(rows)) == (["text 0", "text 1", "text 2"], None, 3)
    assert rows.labels.dtype == np.int64
    taken = rows.take(np.array([2, 0]))
    assert (taken.texts, taken.pairs, taken.labels.tolist()) == (["text 2", "text 0"], None, [2, 0])


def test_pairs(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "rows.parquet", ["a", "b", "c"]))
    assert rows.pairs == ["a", "b", "c"]
    assert rows.take(np.array([1])).pairs == ["b"]
