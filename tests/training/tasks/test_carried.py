"""What held-out rows take along, as text."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from training.tasks.carried import Carried, read_carried


def test_values_are_text_and_what_is_missing_has_a_name(tmp_path: Path) -> None:
    also = [json.dumps({"stars": 5.0, "city": "x" * 99}), json.dumps({"stars": None, "city": ""}), None]
    file = tmp_path / "test.parquet"
    pq.write_table(pa.table({"origin": ["a", "b", "c"], "also": also}), file)
    assert read_carried(file, []) == Carried(["a", "b", "c"], {})
    assert read_carried(file, ["stars", "city"]).values == {
        "stars": ["5", "(none)", "(none)"],
        "city": ["x" * 40, "(none)", "(none)"],
    }
