"""Encodings: read where one is given, and only advised where none is."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bentune.bundle.errors import InputError
from bentune.bundle.rows.encodings import guessed
from bentune.bundle.rows.form import FileForm
from bentune.bundle.rows.read import every_row, read_rows

ENGLISH = "The \u201cbest\u201d kettle I\u2019ve had \u2013 and only 30 \u20ac, with caf\u00e9 au lait.\n" * 20
CHINESE = "这台水壶非常好，我很喜欢。发货也很快。\n" * 20
JAPANESE = "このやかんはとても便利です。また買います。\n" * 20


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        (ENGLISH, "cp1252", "cp1252"),
        ("Sch\u00f6ne Gr\u00fc\u00dfe aus K\u00f6ln, \u00fcber f\u00fcnfzig M\u00e4rkte.\n" * 9, "cp1252", "cp1252"),
        (CHINESE, "gbk", "gb18030"),
        (JAPANESE, "shift_jis", "cp932"),
        (ENGLISH, "utf-16", "utf-16"),
        (ENGLISH, "utf-16-le", "utf-16-le"),
        (ENGLISH, "utf-16-be", "utf-16-be"),
    ],
)
def test_the_encoding_is_among_those_advised(text: str, encoding: str, expected: str) -> None:
    found = guessed(text.encode(encoding))
    assert found[0] in {expected, "shift_jis" if expected == "cp932" else expected}
    assert text.encode(encoding).decode(found[0]) == text


def test_a_file_is_never_read_by_a_guess(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(CHINESE.encode("gbk"))
    with pytest.raises(InputError, match=r"line 1: not UTF-8: byte 0x.* it may be gb18030.*: give the encoding"):
        list(read_rows(path))
    assert [row.values["text"] for row in read_rows(path, FileForm(encoding="gbk"))] == CHINESE.splitlines()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "shift_jis", "cp1252", "utf-8-sig"])
def test_rows_are_the_same_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.csv"
    letter = "e" if "jis" in encoding else "\u00e9"
    path.write_bytes(f'text,label\r\n"caf{letter}\r\nau lait",1\r\n'.encode(encoding))
    (row,) = read_rows(path, FileForm(encoding=encoding))
    assert row.values == {"text": f"caf{letter}\r\nau lait", "label": "1"}


def test_the_advice_is_given_once_and_each_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,label\ncaf\xe9,1\nplain,1\nna\xefve,2\n")
    found = [row for row in every_row(path) if row.problem]
    assert [row.line for row in found] == [2, 4]
    assert "it may be cp1252" in str(found[0].problem)
    assert found[1].problem == "not UTF-8: byte 0xef at byte offset 28"


@pytest.mark.parametrize("encoding", ["base64", "rot13", "nonsense", "hex", ""])
def test_what_is_no_encoding_of_texts_is_refused(encoding: str) -> None:
    with pytest.raises(ValidationError, match="is no encoding of texts"):
        FileForm(encoding=encoding)
