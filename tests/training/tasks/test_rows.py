"""Rows as the data stage wrote them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.tasks import rows as stored
from training.tasks.rows import Carried, joined, of_size, open_rows, read_carried, read_rows


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


@pytest.mark.parametrize("paired", [True, False])
def test_a_file_is_read_a_part_at_a_time(paired: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "PART", 7)
    file = write(tmp_path / "rows.parquet", [f"pair {row}" if paired else None for row in range(30)])
    everything, found = read_rows(file), open_rows(file)
    assert (len(found), found.paired, found.labels.tolist()) == (30, paired, everything.labels.tolist())
    assert [len(part) for part in found.parts()] == [7, 7, 7, 7, 2]
    assert joined(found.parts()).texts == everything.texts == [f"text {row}" for row in range(30)]
    # Sorted numbers may repeat; others are taken in any order.
    numbers = np.array([0, 3, 3, 6, 7, 20, 29, 29])
    some, expected = joined(found.parts(numbers)), everything.take(numbers)
    assert (some.texts, some.pairs, some.labels.tolist()) == (expected.texts, expected.pairs, expected.labels.tolist())
    assert [len(part) for part in found.parts(numbers)] == [4, 1, 1, 2]
    mixed = np.array([29, 0, 14, 0])
    taken = found.take(mixed)
    assert (taken.texts, taken.pairs) == (everything.take(mixed).texts, everything.take(mixed).pairs)
    assert len(found.take(np.array([], dtype=np.int64))) == 0


def test_parts_are_made_of_one_size(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "rows.parquet", ["p"] * 20))
    given = [rows.take(np.arange(start, end)) for start, end in ((0, 3), (3, 14), (14, 14), (14, 20))]
    parts = list(of_size(given, 5))
    assert [len(part) for part in parts] == [5, 5, 5, 5]
    assert joined(parts).texts == rows.texts
    assert joined(parts).pairs == rows.pairs
    assert [len(part) for part in of_size(given, 100)] == [20]
    assert list(of_size([], 5)) == []


def test_values_are_text_and_what_is_missing_has_a_name(tmp_path: Path) -> None:
    also = [json.dumps({"stars": 5.0, "city": "x" * 99}), json.dumps({"stars": None, "city": ""}), None]
    file = tmp_path / "test.parquet"
    pq.write_table(pa.table({"origin": ["a", "b", "c"], "also": also}), file)
    assert read_carried(file, []) == Carried(["a", "b", "c"], {})
    assert read_carried(file, ["stars", "city"]).values == {
        "stars": ["5", "(none)", "(none)"],
        "city": ["x" * 40, "(none)", "(none)"],
    }
