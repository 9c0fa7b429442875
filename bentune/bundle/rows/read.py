"""Readers of files with rows, by suffix."""

import gzip
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from bentune.bundle.errors import InputError
from bentune.bundle.rows.csv_rows import DELIMITERS, csv_rows
from bentune.bundle.rows.form import UTF8, FileForm
from bentune.bundle.rows.json_rows import json_array_rows, json_line_rows
from bentune.bundle.rows.lines import BrokenLine, Lines
from bentune.bundle.rows.row import Row
from bentune.bundle.rows.tables import excel_rows, parquet_columns, parquet_rows

TEXT = ".txt"
JSON_LINES = (".jsonl", ".ndjson")
JSON, PARQUET, EXCEL = ".json", ".parquet", ".xlsx"
SUFFIXES = (*DELIMITERS, *JSON_LINES, JSON, PARQUET, EXCEL, TEXT)
PACKED = (".gz", ".zip")
"""Suffixes of a packed file, after that of what is in it: rows.csv.gz."""


def read_rows(path: Path, form: FileForm = UTF8, *, label: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file in its order, in constant memory but for .json and .xlsx.

    Values are strings in CSV, TSV and text, else what the file holds. Blank lines between CSV or JSON rows are no rows;
    in a text file they are, so that row n is always line n + 1. `label` is the column of the labels, where there is
    one.

    Raises:
        InputError: at once where the path is wrong; while iterating where the content is, or where there is no row.

    """
    return _readable(path, every_row(path, form, label=label))


def every_row(path: Path, form: FileForm = UTF8, *, label: str | None = None) -> Iterator[Row]:
    """Yield the rows as `read_rows` does, and those that cannot be read with their `problem`.

    Raises:
        InputError: as `read_rows`, but for a single row only where rows after it are lost with it.

    """
    return _rows(path, suffix_of(path), form, label)


def columns(path: Path, form: FileForm = UTF8) -> list[str]:
    """Return the names of the columns.

    They are a header, the keys of the first JSON object, or ["text"] of a text file.

    Raises:
        InputError: as `every_row` does up to the first row that can be read, and where there is none.

    """
    if path.suffix.lower() == PARQUET and path.is_file():
        return parquet_columns(path)
    broken: Row | None = None
    for row in every_row(path, form):
        if row.problem is None:
            return list(row.values)
        broken = broken or row
    raise InputError(f"{path}, line {broken.line if broken else 1}: {broken.problem if broken else 'no row'}")


def suffix_of(path: Path) -> str:
    """Return the suffix of a file in lower case, that of its content where the file is packed.

    Raises InputError unless the file is there, can be read, and is of a known type.
    """
    if path.is_dir():
        raise InputError(f"{path}: a directory where a file is needed; name one file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path (from {Path.cwd()})")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it; check its mode and owner")
    suffix = path.suffix.lower()
    if suffix == ".gz":
        suffix = Path(path.stem).suffix.lower()
    elif suffix == ".zip":
        suffix = Path(_only_member(path)).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown file type {path.suffix!r}; convert it to one of {', '.join(SUFFIXES)}")
    if path.suffix.lower() in PACKED and suffix in (PARQUET, EXCEL):
        raise InputError(f"{path}: a packed {suffix} file; unpack it")
    return suffix


def _readable(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if row.problem is not None:
            raise InputError(f"{path}, line {row.line}: {row.problem}")
        yield row


def _rows(path: Path, suffix: str, form: FileForm, label: str | None) -> Iterator[Row]:
    number = -1
    if suffix == PARQUET:
        rows = parquet_rows(path)
    elif suffix == EXCEL:
        rows = excel_rows(path, form.header)
    else:
        rows = _of_text(path, suffix, form, label)
    for row in rows:
        number = row.number
        yield row
    if number < 0:
        with path.open("rb") as file:
            empty = file.read(4) in (b"", b"\xef\xbb\xbf")
        raise InputError(f"{path}: {'the file is empty' if empty else 'nothing but a header or blank lines'}; add rows")


def _of_text(path: Path, suffix: str, form: FileForm, label: str | None) -> Iterator[Row]:
    again = partial(_opened, path)
    try:
        with again() as file:
            if suffix == JSON and _starts_a_list(file):
                with again() as whole:
                    yield from json_array_rows(whole, form.encoding)
                return
        with again() as file:
            lines = Lines(path, file, form.encoding, again)
            if suffix in DELIMITERS:
                yield from csv_rows(lines, suffix, form, label)
            elif suffix == TEXT:
                yield from _text_rows(lines)
            else:
                yield from json_line_rows(lines)
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path}: cannot be unpacked: {error}") from None


def _text_rows(lines: Lines) -> Iterator[Row]:
    number = 0
    while True:
        lines.start_row()
        try:
            line = next(lines, None)
            if line is None:
                return
            yield Row(number, lines.number, {"text": line.removesuffix("\n").removesuffix("\r")})
        except BrokenLine as broken:
            yield Row(number, lines.number, {}, str(broken))
        number += 1


def _starts_a_list(file: IO[bytes]) -> bool:
    return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    match path.suffix.lower():
        case ".gz":
            with gzip.open(path, "rb") as file:
                yield cast("IO[bytes]", file)
        case ".zip":
            name = _only_member(path)
            with zipfile.ZipFile(path) as packed, packed.open(name) as member:
                yield member
        case _:
            with path.open("rb") as plain:
                yield plain


def _only_member(path: Path) -> str:
    """Return the name of the one file in a zip. Raises InputError for more, and for one with a password."""
    try:
        with zipfile.ZipFile(path) as packed:
            found = [
                one
                for one in packed.infolist()
                if not one.is_dir() and not Path(one.filename).name.startswith((".", "_"))
            ]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path}: not a zip file: {error}") from None
    if len(found) != 1:
        raise InputError(f"{path}: {len(found)} files in it; unpack it and give a folder or one file")
    if found[0].flag_bits & 1:
        raise InputError(f"{path}: needs a password; unpack it")
    return found[0].filename
