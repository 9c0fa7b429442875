"""Rows that are read out of each kind of file, and its message on each kind of broken file."""

import csv
import os
import re
import tracemalloc
from pathlib import Path
from string import Template

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.errors import InputError
from bentune.bundle.rows.form import FileForm
from bentune.bundle.rows.lines import MAX_ROW_BYTES
from bentune.bundle.rows.read import columns, read_rows
from bentune.bundle.rows.row import Row, text_of

SECRET = "hunter2"


def written(directory: Path, name: str, content: str | bytes) -> Path:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def message_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param(
            "a.csv",
            'label,text\r\n5,"two\r\nlines, ""quoted"""\r\n\r\n1,käse\r\n',
            [(2, {"label": "5", "text": 'two\r\nlines, "quoted"'}), (5, {"label": "1", "text": "käse"})],
            id="csv with newlines, quotes, a blank line and CRLF",
        ),
        pytest.param("a.csv", "\n\ntext\nx", [(4, {"text": "x"})], id="csv with blank lines first, no last newline"),
        pytest.param("a.csv", b"\xef\xbb\xbftext\nx\n", [(2, {"text": "x"})], id="csv with a BOM"),
        pytest.param("a.csv", 'text\n""\n', [(2, {"text": ""})], id="csv with an empty field"),
        pytest.param("A.TSV", "label\ttext\n5\ta, b\n", [(2, {"label": "5", "text": "a, b"})], id="tsv, upper case"),
        pytest.param(
            "a.jsonl",
            '{"text": "a\\nb", "label": 5}\n\n{"other": null}\n',
            [(1, {"text": "a\nb", "label": 5}), (3, {"other": None})],
            id="jsonl with a blank line",
        ),
        pytest.param("a.ndjson", b'\xef\xbb\xbf{"a": [{"b": 1}]}', [(1, {"a": [{"b": 1}]})], id="ndjson with a BOM"),
        pytest.param(
            "a.txt", "one, \r\n\ntwo", [(1, {"text": "one, "}), (2, {"text": ""}), (3, {"text": "two"})], id="txt"
        ),
    ],
)
def test_rows_have_their_values_numbers_and_lines(
    tmp_path: Path, name: str, content: str | bytes, expected: list[tuple[int, dict[str, object]]]
) -> None:
    path = written(tmp_path, name, content)
    assert list(read_rows(path)) == [Row(number, *rest) for number, rest in enumerate(expected)]
    assert columns(path) == list(expected[0][1])


QUOTED = "put quotes around a field that holds a"
NO_QUOTES = (
    "Where quotes belong to the texts, give quoting none (data.quoting in a recipe, --quoting for `bentune predict`)"
)
ENCODING = "(data.encoding in a recipe, --encoding for `bentune predict`)"
OTHERS = re.compile(r" \(or [a-z0-9_ ]+\)")
CP1252 = (
    f"; it may be cp1252: give the encoding {ENCODING} and look at the rows that are shown then, or convert the file "
    "to UTF-8"
)

BROKEN = [
    ("a.csv", "", "$path: the file is empty; add rows"),
    ("a.csv", b"\xef\xbb\xbf", "$path: the file is empty; add rows"),
    ("a.jsonl", "", "$path: the file is empty; add rows"),
    ("a.txt", "", "$path: the file is empty; add rows"),
    ("a.csv", "label,text\n", "$path: nothing but a header or blank lines; add rows"),
    ("a.jsonl", "\n \n", "$path: nothing but a header or blank lines; add rows"),
    (
        "a.csv",
        f"label,text\n1,{SECRET}\n\n2,ok,{SECRET}\n",
        f"$path, line 4: fields in this row: 3, in the header: 2; {QUOTED} comma or a newline, and leave no field out",
    ),
    (
        "a.tsv",
        f'label\ttext\n1\t"{SECRET}\n"\n{SECRET}\n',
        f"$path, line 4: fields in this row: 1, in the header: 2; {QUOTED} tab or a newline, and leave no field out",
    ),
    (
        "a.csv",
        f"label,text,label\n1,{SECRET},2\n",
        "$path, line 1: column 'label' is in the header twice; rename or remove one",
    ),
    (
        "a.csv",
        f'label,text\n1,{SECRET}\n2,"{SECRET}\n3,x\n',
        "$path, line 3: a quote is opened in the row that starts here and never closed; close it, and write a quote "
        f'that belongs to a quoted text twice (""). {NO_QUOTES}: that gives 3 rows; lines with a field that begins '
        "with a quote: 3",
    ),
    (
        "a.csv",
        f'label,text\n2,"{SECRET}\nx"{SECRET}\n',
        "$path, line 3: a closing quote with text after it, in the row that starts at line 2; put quotes around the "
        f'whole field, and write a quote that belongs to the text twice (""). {NO_QUOTES}: that gives 2 rows, 1 of '
        "them unreadable; lines with a field that begins with a quote: 2",
    ),
    (
        "a.csv",
        f"label,text\r1,{SECRET}\r",
        "$path, line 1: a carriage return without a line feed outside quotes; put quotes around the field, or, where "
        "all lines end so, convert the file: tr '\\r' '\\n' < $path > converted.csv",
    ),
    *(
        (
            f"a{suffix}",
            start.encode() + f'{{"text": "{SECRET}'.encode() + b'\xe9"}\n',
            f"$path, line 2: not UTF-8: byte 0xe9 at byte offset {len(start) + 17}{CP1252}",
        )
        for suffix, start in ((".csv", "text\n"), (".jsonl", '{"text": "a"}\n'), (".txt", "a\n"))
    ),
    (
        "a.txt",
        b"\xef\xbb\xbf\xff",
        f"$path, line 1: not UTF-8: byte 0xff at byte offset 3{CP1252}",
    ),
    (
        "a.csv",
        f"text\n{SECRET}\n".encode("utf-16"),
        f"$path, line 1: not UTF-8: byte 0xff at byte offset 0{CP1252.replace('cp1252', 'utf-16')}",
    ),
    (
        "a.csv",
        f"text\n{SECRET}\0\n",
        "$path, line 2: a NUL byte at byte offset 12: this is no text file, or it is UTF-16; then give "
        f"the encoding {ENCODING}",
    ),
    (
        "a.jsonl",
        f'{{"text": "a"}}\n{{"text": "{SECRET}" 5}}\n',
        "$path, line 2: not valid JSON at column 20 (Expecting ',' delimiter); write one whole JSON object a line",
    ),
    ("a.jsonl", f'["{SECRET}"]\n', "$path, line 1: a JSON list where an object is needed; write {...} on each line"),
    (
        "a.jsonl",
        f'{{"text": "{SECRET}", "text": "b"}}\n',
        "$path, line 1: a key is in the JSON object twice; rename or remove one",
    ),
    (
        "a.jsonl",
        f'{{"text": {"[" * 100_000}\n',
        "$path, line 1: a JSON number is too long or lists are nested too deeply; shorten it",
    ),
    (
        "a.jsonl",
        f'{{"id": {"1" * 5000}}}\n',
        "$path, line 1: a JSON number is too long or lists are nested too deeply; shorten it",
    ),
]


@pytest.mark.parametrize(("name", "content", "expected"), BROKEN)
def test_a_broken_file_is_refused_with_its_line_and_the_way_out(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    path = written(tmp_path, name, content)
    message = OTHERS.sub("", message_of(path))
    assert message == Template(expected).substitute(path=path)
    assert SECRET not in message


def test_wrong_paths_are_refused_before_iterating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            read_rows(path)
        return str(caught.value)

    document, unreadable = written(tmp_path, "a.doc", "x"), written(tmp_path, "a.csv", "x")
    missing = tmp_path / "missing.csv"
    assert refused(missing) == f"{missing}: no such file; check the path (from {Path.cwd()})"
    assert refused(tmp_path) == f"{tmp_path}: a directory where a file is needed; name one file in it"
    assert refused(document) == (
        f"{document}: unknown file type '.doc'; convert it to one of .csv, .tsv, .jsonl, .ndjson, .json, .parquet, "
        ".xlsx, .txt"
    )
    # Tests may run as root, who may read everything.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert refused(unreadable) == f"{unreadable}: no permission to read it; check its mode and owner"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_a_row_over_the_bound_is_refused_before_it_is_read_whole(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, f"a{suffix}", '{"text": 1}\n\n"open ' + "x" * (3 * MAX_ROW_BYTES))
    tracemalloc.start()
    try:
        message = message_of(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message == (
        f"{path}, line 3: the row is longer than 10 MB; shorten it, "
        "or look for a quote that is opened there and never closed"
    )
    assert peak < 2.5 * MAX_ROW_BYTES


def test_a_quote_never_closed_stops_at_the_bound_and_names_the_line_it_starts_at(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'text\nx\n"open\n' + ("x" * 99 + "\n") * (MAX_ROW_BYTES // 100 + 10))
    assert message_of(path).startswith(f"{path}, line 3: the row is longer than 10 MB;")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_the_bound_is_for_one_row_not_for_the_file_and_memory_stays_constant(tmp_path: Path, suffix: str) -> None:
    line = '{"text": 1}' if suffix == ".jsonl" else "text"
    path = written(tmp_path, f"a{suffix}", (line + " " * 20_000 + "\n") * (MAX_ROW_BYTES // 20_000 + 10))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_rows(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == MAX_ROW_BYTES // 20_000 + 10 - (suffix == ".csv")
    assert peak < 1_000_000


def test_large_fields_are_read_and_the_csv_modules_own_limit_is_left_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    large = "x" * (before + 1)
    path = written(tmp_path, "a.csv", f"text\n{large}\n{large}\n")
    seen = []
    for row in read_rows(path):
        assert csv.field_size_limit() == before
        seen.append(row.values["text"])
    assert seen == [large, large]
    message_of(written(tmp_path, "b.csv", 'text\n"'))
    assert csv.field_size_limit() == before


def test_text_of_returns_the_text_unchanged() -> None:
    assert text_of(Row(0, 1, {"text": "  ä \n"}), "text", Path("a.csv")) == "  ä \n"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"Text": SECRET, "label": "5"},
            "there is no column 'text'; the columns are 'Text', 'label'; did you mean 'Text'?",
        ),
        ({"review": SECRET}, "there is no column 'text'; the columns are 'review'"),
        ({}, "there is no column 'text'; the row has no columns at all"),
        (
            {SECRET * 6: "5", **dict.fromkeys("abcdefghij", "5")},
            "there is no column 'text'; the columns are a name of 42 characters, 'a', 'b', 'c', 'd', 'e', 'f', 'g', "
            "'h', 'i', ...",
        ),
        ({"text": None}, "column 'text' holds null where a text is needed; write it as a string"),
        ({"text": [SECRET]}, "column 'text' holds a JSON list where a text is needed; write it as a string"),
        ({"text": " \n"}, "column 'text' is empty; fill it in or remove the row"),
        (
            {"text": f"{SECRET}\ud800"},
            "column 'text' holds half of a surrogate pair at character 7; write the whole pair or the character itself",
        ),
    ],
)
def test_text_of_names_the_row_the_column_and_the_problem(values: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        text_of(Row(3, 9, values), "text", Path("in/a.jsonl"))
    assert str(caught.value) == f"in/a.jsonl, row 3 (line 9): {problem}"


def test_the_nearest_column_is_found_whatever_its_case() -> None:
    with pytest.raises(InputError, match="did you mean 'review'"):
        text_of(Row(0, 1, {"review": "a", "stars": "5"}), "REVIEWS", Path("a.csv"))


def test_columns_refuses_what_reading_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file is empty"):
        columns(written(tmp_path, "a.jsonl", ""))


SPECIAL = st.sampled_from(',"\t\r\n ä\u2028\ufeff😀')
TEXTS = st.text(SPECIAL | st.characters(exclude_characters="\0", codec="utf-8"))
# A name that starts with U+FEFF would be a BOM in the file, and a column without a name is not read.
NAMES = TEXTS.filter(lambda name: name and not name.startswith("\ufeff"))


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    header = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    row = st.lists(TEXTS, min_size=len(header), max_size=len(header))
    return [header, *draw(st.lists(row, min_size=1, max_size=6))]


@examples(200)
@given(table=tables(), tabs=st.booleans(), bom=st.booleans(), quote_all=st.booleans())
def test_what_the_csv_module_writes_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]], tabs: bool, bom: bool, quote_all: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / ("a.tsv" if tabs else "a.csv")
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        dialect = "excel-tab" if tabs else "excel"
        csv.writer(file, dialect, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL).writerows(table)
    header, *rows = table
    form = FileForm(delimiter="\t" if tabs else ",")
    assert columns(path, form) == header
    assert [row.values for row in read_rows(path, form)] == [dict(zip(header, row, strict=True)) for row in rows]
