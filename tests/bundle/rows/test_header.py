"""Messages about missing columns name the nearest one, and never hold the first row of a file without a header."""

from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from bentune.bundle.rows.form import FileForm
from bentune.bundle.rows.header import require_columns

WANTED = [("data.columns.text", "text"), ("data.columns.label", "label")]


def message(tmp_path: Path, content: str) -> str:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        require_columns(path, WANTED)
    return str(caught.value).replace(str(path), "rows.csv")


def test_the_nearest_column_is_named(tmp_path: Path) -> None:
    assert message(tmp_path, "Text,label,other\na,b,c\n") == (
        "data.columns.text: rows.csv has no column 'text'; the columns are 'Text', 'label', 'other'; did you mean "
        "'Text'?"
    )


@pytest.mark.parametrize(
    "content",
    [
        "a secret review that nobody must see,good\nanother,bad\n",
        "secret,good\nb,bad\nc,good\n",
        "secret,5\nb,1\n",
        f"{'secret' * 9},x\nb,y\n",
    ],
)
def test_the_first_row_of_a_file_without_a_header_is_not_shown(tmp_path: Path, content: str) -> None:
    found = message(tmp_path, content)
    assert found == (
        "data.columns.text: rows.csv has no column 'text', and its first line looks like a row of 2 fields: where "
        "the file has no header, name its columns in their order (data.header in a recipe, --header for `bentune "
        "predict`)"
    )


def test_names_that_are_given_count(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a secret review,good\n")
    assert require_columns(tmp_path / "rows.csv", WANTED, FileForm(header=("text", "label"))) is None
    with pytest.raises(InputError, match="no column 'label'; the columns are 'text', 'stars'"):
        require_columns(tmp_path / "rows.csv", WANTED, FileForm(header=("text", "stars")))
