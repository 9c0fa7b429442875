"""Rows of Parquet files, Excel sheets and packed files."""

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentune.bundle.errors import InputError
from bentune.bundle.rows import tables
from bentune.bundle.rows.read import columns, read_rows

SHEET = """<?xml version="1.0" encoding="UTF-8"?>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{rows}</sheetData></worksheet>"""
PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default '
    'Extension="xml" ContentType="application/xml"/><Default Extension="rels" ContentType="application/vnd.'
    'openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
    'Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://'
    'schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="rows" sheetId="1" r:id="rId1"/>'
    "</sheets></workbook>",
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
    'Target="worksheets/sheet1.xml"/></Relationships>',
}


def sheet(path: Path, cells: list[list[str | float | None]]) -> Path:
    """Write an Excel file by hand, as no package here writes one."""
    rows = ""
    for line, values in enumerate(cells, 1):
        row = ""
        for column, value in zip("ABCDEF", values, strict=False):
            if isinstance(value, str):
                row += f'<c r="{column}{line}" t="inlineStr"><is><t xml:space="preserve">{value}</t></is></c>'
            elif value is not None:
                row += f'<c r="{column}{line}"><v>{value}</v></c>'
        rows += f'<row r="{line}">{row}</row>'
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in (PARTS | {"xl/worksheets/sheet1.xml": SHEET.format(rows=rows)}).items():
            packed.writestr(name, content)
    return path


def test_an_excel_sheet_has_its_rows_with_their_lines(tmp_path: Path) -> None:
    path = sheet(tmp_path / "rows.xlsx", [["text", "label"], ["caf\u00e9 \u597d", 5.0], [None, None], ["b", None]])
    assert [(row.number, row.line, row.values) for row in read_rows(path)] == [
        (0, 2, {"text": "caf\u00e9 \u597d", "label": 5}),
        (1, 4, {"text": "b", "label": None}),
    ]
    assert columns(path) == ["text", "label"]


def test_an_excel_file_that_is_none_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.xlsx").write_text("text,label\na,1\n")
    with pytest.raises(InputError, match=r"rows.xlsx is not an Excel file \(.xlsx\)"):
        list(read_rows(tmp_path / "rows.xlsx"))
    monkeypatch.setattr(tables, "MAX_SHEET_BYTES", 100)
    with pytest.raises(InputError, match="once unpacked; save it as CSV UTF-8"):
        list(read_rows(sheet(tmp_path / "large.xlsx", [["text"], ["a"]])))


def test_numbers_of_classes_have_their_names_in_a_parquet_file_of_datasets(tmp_path: Path) -> None:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "all": {"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "List"},
    }
    table = pa.table({"text": ["a", "b"], "label": [1, 7], "all": [[0, 1], []]})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "rows.parquet")
    assert [row.values for row in read_rows(tmp_path / "rows.parquet")] == [
        {"text": "a", "label": "pos", "all": ["x", "y"]},
        {"text": "b", "label": 7, "all": []},
    ]


@pytest.mark.parametrize(
    "metadata", [b"", b"5", b"{}", b'{"info": {"features": [1]}}', b'{"info": {"features": {"label": 5}}}']
)
def test_metadata_that_nobody_wrote_so_is_ignored(metadata: bytes) -> None:
    assert tables.class_names({b"huggingface": metadata}) == {}


def test_a_packed_file_is_read_as_what_is_in_it(tmp_path: Path) -> None:
    content = b"text,label\na,1\nb,2\n"
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as packed:
        packed.writestr("inner/rows.csv", content)
        packed.writestr("__MACOSX/._rows.csv", b"no row")
    for name in ("rows.csv.gz", "rows.zip"):
        assert [row.values["text"] for row in read_rows(tmp_path / name)] == ["a", "b"]


def test_packed_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.gz").write_bytes(b"text,label\n")
    with pytest.raises(InputError, match="cannot be unpacked"):
        list(read_rows(tmp_path / "rows.csv.gz"))
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"text,label\n" + b"a,1\n" * 9999)[:-9])
    with pytest.raises(InputError, match="cannot be unpacked"):
        list(read_rows(tmp_path / "cut.csv.gz"))
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as packed:
        packed.writestr("a.csv", b"")
        packed.writestr("b.csv", b"")
    with pytest.raises(InputError, match="2 files in it; unpack it"):
        read_rows(tmp_path / "two.zip")
    (tmp_path / "rows.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"unknown file type '\.gz'"):
        read_rows(tmp_path / "rows.gz")
