"""Rows of JSON lines and of one list: nested keys by path, broken lines with their problem."""

import json
from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from bentune.bundle.rows import json_rows
from bentune.bundle.rows.json_rows import flat
from bentune.bundle.rows.read import columns, every_row, read_rows


def test_values_of_inner_objects_have_a_path() -> None:
    found = flat({"text": "a", "meta": {"label": "x", "more": {"id": 5}}, "meta.id": 7})
    assert found == {
        "text": "a",
        "meta": {"label": "x", "more": {"id": 5}},
        "meta.label": "x",
        "meta.more": {"id": 5},
        "meta.more.id": 5,
        "meta.id": 7,
    }
    assert flat({"meta": {"id": 1}, "meta.id": 7})["meta.id"] == 7


def test_objects_that_are_nested_too_deeply_are_not_looked_into() -> None:
    value: dict[str, object] = {"a": 1}
    for _ in range(50):
        value = {"a": value}
    assert len(flat(value)) == 9


def test_a_list_of_objects_is_read_and_lines_are_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "a", "label": "01"}, 5, {"text": "b", "label": None}], indent=1))
    assert [(row.number, row.line, dict(row.values)) for row in every_row(path) if not row.problem] == [
        (0, 1, {"text": "a", "label": "01"}),
        (2, 3, {"text": "b", "label": None}),
    ]
    with pytest.raises(InputError, match="line 2: a JSON int where an object is needed"):
        list(read_rows(path))
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    assert [row.values["text"] for row in read_rows(path)] == ["a", "b"]
    assert columns(path) == ["text"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[1, 2", "not valid JSON in line 1, column 6"),
        ('[{"a": 1, "a": 2}]', "a key is in the JSON object twice"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "nothing but a header or blank lines"),
    ],
)
def test_a_list_that_is_broken(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(InputError, match=problem):
        list(read_rows(path))


def test_a_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_ARRAY_BYTES", 20)
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "a" * 30}]))
    with pytest.raises(InputError, match="write JSON lines"):
        list(read_rows(tmp_path / "rows.json"))


def test_every_broken_line_of_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n[1]\n{"text": "b"}\n')
    assert [(row.line, str(row.problem)[:20]) for row in every_row(path) if row.problem] == [
        (2, "not valid JSON at co"),
        (3, "a JSON list where an"),
    ]
