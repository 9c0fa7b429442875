"""Rows to compare on: what is read, what is refused, what is left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Columns
from bentune.bundle.seen_rows import RowFilter, SeenRows, row_key
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.quality.labelled import Labelled, odds, read_labelled, refuse_trained, trained_on, without_copies

TEXT = Columns(text="text")
TARGET = OneLabel(labels=["cat", "5"])


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, **more: Any) -> Labelled:
    return read_labelled(path, more.pop("columns", TEXT), more.pop("target", TARGET), **more)


def seen_rows(keys: list[bytes], *before: list[bytes]) -> SeenRows:
    none = RowFilter.of([])
    return SeenRows(
        trained=RowFilter.of(keys), held_out=none, labelled=none, before=[RowFilter.of(one) for one in before]
    )


def test_rows_with_labels_as_they_are_served_and_values_of_slices(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        {"text": "a", "label": "cat", "year": 2024, "set": "new"},
        {"text": "b", "label": 5.0, "year": 2025.5},
        {"text": "c", "label": "feline", "set": None},
    )
    rows = read(path, slices=["year", "set", "year"], renamed={"feline": "cat"})
    assert rows.texts == [("a", None), ("b", None), ("c", None)]
    assert rows.gold.tolist() == [0, 1, 0]
    assert rows.values == {"year": ["2024", "2025.5", "(none)"], "set": ["new", "(none)", "(none)"]}
    assert rows.keys == [row_key("a"), row_key("b"), row_key("c")]


def test_rows_with_any_number_of_labels(tmp_path: Path) -> None:
    tags = ManyLabels(labels=["cat", "5"])
    path = write(
        tmp_path / "rows.jsonl",
        {"text": "a", "label": ["cat", 5]},
        {"text": "b", "label": []},
        {"text": "c", "label": "feline; 5"},
    )
    rows = read(path, target=tags, renamed={"feline": "cat"}, separator=";")
    assert rows.gold.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert rows.gold.dtype == np.int64
    with pytest.raises(InputError, match="column 'label' is a text: write a JSON list"):
        read(path, target=tags)


def test_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"one": "a", "two": "b", "label": "cat"})
    rows = read(path, columns=Columns(text="one", text_pair="two"))
    assert rows.texts == [("a", "b")]
    assert rows.keys == [row_key("a", "b")]


@pytest.mark.parametrize(
    ("row", "more", "said"),
    [
        (
            {"text": "a", "label": "dog"},
            {},
            r"row 0 \(line 1\): column 'label' has 'dog', which is none of the models' labels, which are cat, 5",
        ),
        ({"text": "a", "label": "secret " * 20}, {}, "a label of 139 characters, which is none"),
        ({"text": "a"}, {}, "column 'label' has no label; fill it in, or name another with --label-column"),
        ({"text": "a", "label": True}, {}, "column 'label' has no label"),
        ({"text": "a", "label": "cat"}, {"slices": ["text"]}, "'text' holds the texts"),
        ({"text": "a", "label": "cat", "yeer": 1}, {"slices": ["year"]}, "no row has the column 'year'.*mean 'yeer'"),
        ({"text": "a", "label": "cat"}, {"most": 0}, "more than 0 rows"),
        ({"text": "", "label": "cat"}, {}, "column 'text' is empty"),
    ],
)
def test_refused(row: dict[str, Any], more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read(write(tmp_path / "rows.jsonl", row), **more)
    assert "secret" not in str(refused.value)


def test_copies_are_left_out_whatever_their_case(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *({"text": text, "label": "cat"} for text in ("a b", "A  B", "c")))
    rows = without_copies(read(path))
    assert (len(rows), rows.numbers) == (2, [0, 2])


def test_trained_rows_are_refused_or_found(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *({"text": f"text {n}", "label": "cat"} for n in range(20)))
    rows = read(path)
    filters = {
        "the candidate a:1": seen_rows([]),
        # Five of them are gone from its data, but its weights began with them.
        "the served model a:0": seen_rows(rows.keys[3:6], rows.keys[6:8], rows.keys[8:11]),
    }
    with pytest.raises(InputError) as refused:
        refuse_trained(rows, filters)
    said = str(refused.value)
    assert "the served model a:0 was trained on 8 of the 20 rows (numbers 3, 4, 5, 6, 7, ...)" in said
    assert "--leave-out-trained" in said
    assert odds(filters["the served model a:0"]) in said
    seen = trained_on(rows, filters)
    assert np.flatnonzero(seen).tolist() == list(range(3, 11))
    rest = rows.where(~seen)
    refuse_trained(rest, filters)
    assert len(rest) == 12
    with pytest.raises(InputError, match="no row is left"):
        rows.where(np.zeros(20, dtype=bool))


def test_the_odds_of_a_filter() -> None:
    keys = [row_key(str(n)) for n in range(5000)]
    rate = RowFilter.of(keys).false_positive_rate
    assert odds(seen_rows(keys)) == f"one in {1 / rate:,.0f}"
    assert odds(seen_rows(keys, keys, keys)) == f"one in {1 / (3 * rate):,.0f}"


def test_the_fingerprint_is_of_rows_and_labels_in_any_order(tmp_path: Path) -> None:
    one, two = {"text": "a", "label": "cat"}, {"text": "b", "label": "5"}
    first = read(write(tmp_path / "1.jsonl", one, two)).fingerprint()
    assert read(write(tmp_path / "2.jsonl", two, one)).fingerprint() == first
    assert read(write(tmp_path / "3.jsonl", one, two | {"label": "cat"})).fingerprint() != first
