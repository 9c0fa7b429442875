"""Rows of CSV and TSV files: no row disappears unseen, and one broken line is not the end of the file."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.errors import InputError
from bentune.bundle.rows.form import FileForm
from bentune.bundle.rows.read import columns, every_row, read_rows

NONE, MINIMAL = FileForm(quoting="none"), FileForm(quoting="minimal")
WORDS = "plug shelf desk spoon brush drawer clock kettle"


def written(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


def texts(path: Path, form: FileForm = MINIMAL, **more: str) -> list[object]:
    return [row.values["text"] for row in read_rows(path, form, **more)]


def stray(delimiter: str, quoted: int = 5, closed: int = 20, rows: int = 24) -> str:
    """Rows of which one begins with a quote, and a later one ends with an inch sign."""
    lines = [delimiter.join(("text", "label"))]
    for number in range(rows):
        text = f"{WORDS} {number}"
        text = f'"{text}' if number == quoted else f'{text}"' if number == closed else text
        lines.append(delimiter.join((text, "good" if number % 2 else "bad")))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_quote_that_swallows_rows_stops_with_its_line(tmp_path: Path, suffix: str) -> None:
    delimiter = "," if suffix == ".csv" else "\t"
    path = written(tmp_path / f"rows{suffix}", stray(delimiter))
    for label in ("label", None):
        with pytest.raises(InputError, match="line 7: a quote that opens in this line encloses 16 lines"):
            list(read_rows(path, label=label))
    assert len(texts(path, NONE)) == 24
    assert texts(path, NONE)[5] == f'"{WORDS} 5'


@pytest.mark.parametrize("end", ['"', 'x",more'])
def test_a_swallowed_row_with_another_number_of_fields_is_no_broken_row(tmp_path: Path, end: str) -> None:
    lines = stray(",", closed=-1).splitlines()
    lines[20] += end
    with pytest.raises(InputError, match="line 7: a quote that opens in this line encloses 15 lines"):
        list(every_row(written(tmp_path / "rows.csv", "\n".join(lines)), label="label"))


def test_texts_of_several_lines_are_no_swallowed_rows(tmp_path: Path) -> None:
    rows = [
        ("Dear all,\nplease find below, as agreed,\nthe minutes.\nBest, Ann", "mail"),
        ("good, I liked it", "mail"),
        ("first, second\nthird, mail\nfourth", "note"),
        ("one\n\ntwo", "note"),
        ("note,mail\nx", "note"),
    ] * 3
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("text", "label"), *rows])
    path = written(tmp_path / "rows.csv", out.getvalue())
    for label in ("label", None):
        assert [row.values["text"] for row in read_rows(path, label=label)] == [text for text, _ in rows]


@examples(100, ci=40)
@given(
    rows=st.lists(
        st.tuples(st.text(st.sampled_from('ab ,"\n'), max_size=30), st.sampled_from(["yes", "no", "may be"])),
        min_size=1,
        max_size=30,
    )
)
def test_what_the_csv_module_writes_is_never_taken_for_swallowed(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    assert [(row.values["text"], row.values["label"]) for row in read_rows(path, label="label")] == rows


def test_a_broken_line_has_a_problem_and_the_next_ones_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", 'text,label\na,1\nb\n"c"x,1\nd,1,2\ne,1\n')
    found = list(every_row(path))
    assert [(row.number, row.line, dict(row.values)) for row in found if row.problem is None] == [
        (0, 2, {"text": "a", "label": "1"}),
        (4, 6, {"text": "e", "label": "1"}),
    ]
    assert [(row.line, str(row.problem).split(";")[0]) for row in found if row.problem] == [
        (3, "fields in this row: 1, in the header: 2"),
        (4, "a closing quote with text after it, in the row that starts at line 4"),
        (5, "fields in this row: 3, in the header: 2"),
    ]


def test_lines_that_are_lost_inside_a_quote_are_an_error_for_the_whole_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4: a closing quote .* in the row that starts at line 2"):
        list(every_row(written(tmp_path / "a.csv", 'text,label\n"a,1\nb,1\nc" x,1\nd,1\n')))
    broken = tmp_path / "b.csv"
    broken.write_bytes(b'text,label\n"a\n\xff\nb",1\nc,1\n')
    with pytest.raises(InputError, match="line 3: not UTF-8"):
        list(every_row(broken))
    with pytest.raises(InputError, match="line 2: a quote is opened in the row that starts here and never closed"):
        list(every_row(written(tmp_path / "c.csv", 'text,label\n"a,1\nb,1\n')))


def test_without_quoting_every_line_is_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.tsv", 'text\tlabel\n"Great" he said\tgood\n5" screen\tbad\n"\tgood\n')
    assert texts(path, NONE) == ['"Great" he said', '5" screen', '"']


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text;label\na, b;1\n", {"text": "a, b", "label": "1"}),
        ("text\tlabel\na; b\t1\n", {"text": "a; b", "label": "1"}),
        ("\n\ntext;label\na;1\n", {"text": "a", "label": "1"}),
        ("text\na\n", {"text": "a"}),
        ("text;label,other\na,1\n", {"text;label": "a", "other": "1"}),
    ],
)
def test_a_csv_has_the_delimiter_of_its_header(tmp_path: Path, content: str, expected: dict[str, str]) -> None:
    assert [row.values for row in read_rows(written(tmp_path / "rows.csv", content))] == [expected]


def test_a_given_delimiter_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", "text|label\na,b;c|1\n")
    assert texts(path, FileForm(delimiter="|")) == ["a,b;c"]


def test_unnamed_columns_do_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", "text,label,,\na,1,,x\n")
    assert columns(path) == ["text", "label"]
    assert [row.values for row in read_rows(path)] == [{"text": "a", "label": "1"}]


def test_a_file_without_a_header_gets_one(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", "a,1\nb,2\n")
    form = FileForm(header=("text", "label"))
    assert [(row.line, row.values) for row in read_rows(path, form)] == [
        (1, {"text": "a", "label": "1"}),
        (2, {"text": "b", "label": "2"}),
    ]
