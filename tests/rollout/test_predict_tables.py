"""Predictions as CSV and Parquet: the input's columns, and each row's own answer beside them."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scorers import FakeScorer, predictions

from bentune.bundle.errors import InputError
from rollout.predict import predict_file

TEXTS = ["one, two", 'a "quote"', "", "three\nlines"]


def predict(source: Path, output: Path) -> None:
    predict_file(FakeScorer(), source, output, chunk_rows=2, progress=lambda _: None)


def rows(path: Path) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(TEXTS)])
    return path


def test_csv_out_has_the_inputs_columns(tmp_path: Path) -> None:
    predict(rows(tmp_path / "rows.csv"), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [(row["id"], row["text"]) for row in found] == [(str(n), text) for n, text in enumerate(TEXTS)]
    best = predictions(TEXTS[1])[0]
    assert (found[1]["predicted_label"], float(found[1]["predicted_score"])) == (best["label"], best["score"])
    assert json.loads(found[1]["predicted_scores"]) == predictions(TEXTS[1])
    assert found[1]["predicted_error"] == ""
    assert found[2]["predicted_label"] == ""
    assert "column 'text' is empty" in found[2]["predicted_error"]
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "out.csv"}


def test_parquet_in_and_out(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", None], "tags": [["x"], [], None]})
    pq.write_table(table, tmp_path / "rows.parquet")
    predict(tmp_path / "rows.parquet", tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["text"] for row in found] == ["a", "b", None]
    assert [row["tags"] for row in found] == ['["x"]', "[]", None]
    assert [row["predicted_label"] for row in found] == [
        predictions("a")[0]["label"],
        predictions("b")[0]["label"],
        None,
    ]
    assert [row["predicted_score"] for row in found] == [0.75, 0.75, None]
    assert "holds null where a text is needed" in found[2]["predicted_error"]


def test_a_column_of_the_answers_name_is_refused_before_scoring(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,predicted_label\na,b\n")
    with pytest.raises(InputError, match="the input has a column 'predicted_label', as the output has: rename it"):
        predict(tmp_path / "rows.csv", tmp_path / "out.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv"}


def test_a_table_that_could_not_be_written_is_written_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = rows(tmp_path / "rows.csv"), tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writeheader", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict(source, output)
    assert not output.exists()
    scorer = FakeScorer()
    predict_file(scorer, source, output, progress=lambda _: None)
    assert scorer.calls == 0
    with output.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == 5
