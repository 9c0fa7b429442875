"""Rows of a file, read one at a time: CSV, TSV, JSON lines, or one text per line.

Training, offline prediction and the bench share this reader, so a file is valid for all or for none. A message names
the file, the line, the problem and what to do; it never holds a row's text.
"""

import csv
import difflib
import json
import os
import shlex
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from bentune.bundle.errors import InputError

# Bytes of all fields and line ends of one row. The bound keeps memory constant even when a quote is never closed.
MAX_ROW_BYTES = 10_000_000

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TEXT_SUFFIX = ".txt"
SUFFIXES = (*_DELIMITERS, ".jsonl", ".ndjson", _TEXT_SUFFIX)

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")

_field_limit_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Row:
    """Data row: `number` counts from 0, `line` is its first line and counts from 1."""

    number: int
    line: int
    values: Mapping[str, object]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file in its order, in constant memory.

    Values are strings in CSV, TSV and text, and JSON values in JSON lines. Blank lines are skipped in CSV and JSON
    lines; in a text file they are rows, so that row n is always line n + 1.

    Raises:
        InputError: at once where the path is wrong; while iterating where the content is, or where there is no row.
    """
    return _rows(path, _known_suffix(path))


def columns(path: Path) -> list[str]:
    """Return the names of the columns.

    They are the header, the keys of the first JSON object, or ["text"] for a text file.

    Raises:
        InputError: as `read_rows` does up to the first row.
    """
    return list(next(read_rows(path)).values)


def text_of(row: Row, column: str, path: Path) -> str:
    """Return the text in one column of a row, unchanged.

    Raises:
        InputError: the column is missing, or its value is not a string, has nothing in it, or is not valid Unicode.

    """
    place = f"{path}, row {row.number} (line {row.line})"
    if column not in row.values:
        raise InputError(f"{place}: there is no column {column!r}; {_nearest(column, row.values)}")
    value = row.values[column]
    if not isinstance(value, str):
        kind = "null" if value is None else f"a JSON {type(value).__name__}"
        raise InputError(f"{place}: column {column!r} holds {kind} where a text is needed; write it as a string")
    if not value.strip():
        raise InputError(f"{place}: column {column!r} is empty; fill it in or remove the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: column {column!r} holds half of a surrogate pair at character {error.start}; "
            "write the whole pair or the character itself"
        ) from None
    return value


class _Lines:
    """Decoded lines of an open file with their own line ends, as the csv module requires."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path = path
        self.number = 0  # of the last returned line
        self.row_line = 1  # where the row being read starts
        self.ended = False
        self._file = file
        self._offset = 0  # of the first byte not yet returned
        self._row_bytes = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW_BYTES + 1)
        start = self._offset
        self._offset += len(line)
        self._row_bytes += len(line)
        if self.number == 0 and line.startswith(_UTF8_BOM):
            line = line[len(_UTF8_BOM) :]
            start += len(_UTF8_BOM)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if self._row_bytes > MAX_ROW_BYTES:
            raise self.error(
                f"the row is longer than {MAX_ROW_BYTES // 1_000_000} MB; shorten it, "
                "or look for a quote that is opened there and never closed",
                self.row_line,
            )
        return self._decoded(line, start)

    def start_row(self) -> None:
        """Mark the next line as the start of a row."""
        self.row_line = self.number + 1
        self._row_bytes = 0

    def error(self, problem: str, line: int | None = None) -> InputError:
        """Return an error that names the file and a line, by default the last one."""
        return InputError(f"{self.path}, line {line or self.number}: {problem}")

    def _decoded(self, line: bytes, start: int) -> str:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            encoding = "UTF-16" if line.startswith(_UTF16_BOMS) else "LATIN1"
            raise self.error(
                f"not UTF-8: byte 0x{line[error.start]:02x} at byte offset {start + error.start}; "
                f"convert the file: {_iconv(encoding, self.path)}"
            ) from None
        if "\0" in text:
            raise self.error(
                f"a NUL byte at byte offset {start + line.index(0)}: this is no text file, or it is UTF-16; "
                f"then convert it: {_iconv('UTF-16', self.path)}"
            )
        return text


def _rows(path: Path, suffix: str) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = _Lines(path, file)
        number = -1
        for number, values in enumerate(_values(lines, suffix)):
            yield Row(number, lines.row_line, values)
            lines.start_row()
        if number < 0:
            problem = "nothing but a header or blank lines" if lines.number else "the file is empty"
            raise InputError(f"{path}: {problem}; add rows")


def _values(lines: _Lines, suffix: str) -> Iterator[Mapping[str, object]]:
    if suffix in _DELIMITERS:
        yield from _csv_values(lines, _DELIMITERS[suffix])
        return
    for line in lines:
        if suffix == _TEXT_SUFFIX:
            yield {"text": line.removesuffix("\n").removesuffix("\r")}
        elif line.strip():
            yield _json_object(line, lines)
        else:
            lines.start_row()


def _csv_values(lines: _Lines, delimiter: str) -> Iterator[Mapping[str, object]]:
    records = _records(lines, delimiter)
    header = next(records, [])
    for name, count in Counter(header).items():
        if count > 1:
            raise lines.error(f"column {_shown(name)} is in the header twice; rename or remove one", lines.row_line)
    for fields in records:
        if len(fields) != len(header):
            separator = "comma" if delimiter == "," else "tab"
            raise lines.error(
                f"fields in this row: {len(fields)}, in the header: {len(header)}; "
                f"put quotes around a field that holds a {separator} or a newline, and leave no field out",
                lines.row_line,
            )
        yield dict(zip(header, fields, strict=True))


def _records(lines: _Lines, delimiter: str) -> Iterator[list[str]]:
    """Yield the fields of each CSV row, the header's included, except blank lines."""
    # Strict: otherwise the csv module reads a quote that is never closed as one huge field.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            with _large_fields():
                fields = next(reader, None)
        except csv.Error as error:
            raise _csv_error(lines, error) from None
        if fields is None:
            return
        if fields:
            yield fields
        lines.start_row()


@contextmanager
def _large_fields() -> Iterator[None]:
    """Raise the csv module's field limit to a row's bound while one row is read.

    The limit, 128 KiB by default, is global to the process, so it is restored for other code.
    """
    with _field_limit_lock:
        before = csv.field_size_limit(MAX_ROW_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _csv_error(lines: _Lines, error: csv.Error) -> InputError:
    if lines.ended:
        return lines.error(
            "a quote is opened in the row that starts here and never closed; close it, and write a quote that "
            'belongs to a quoted text twice ("")',
            lines.row_line,
        )
    if "new-line character" in str(error):
        return lines.error(
            "a carriage return without a line feed outside quotes; put quotes around the field, or, where all lines "
            f"end so, convert the file: tr '\\r' '\\n' < {shlex.quote(str(lines.path))} > converted{lines.path.suffix}"
        )
    return lines.error(
        f"a closing quote with text after it, in the row that starts at line {lines.row_line}; put quotes around the "
        'whole field, and write a quote that belongs to the text twice ("")'
    )


def _json_object(line: str, lines: _Lines) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        values = dict(pairs)
        if len(values) < len(pairs):
            # json would silently keep only the last of them.
            raise lines.error("a key is in the JSON object twice; rename or remove one")
        return values

    try:
        value = json.loads(line, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise lines.error(
            f"not valid JSON at column {error.colno} ({error.msg}); write one whole JSON object a line"
        ) from None
    except (ValueError, RecursionError):
        raise lines.error("a JSON number is too long or lists are nested too deeply; shorten it") from None
    if not isinstance(value, dict):
        raise lines.error(f"a JSON {type(value).__name__} where an object is needed; write {{...}} on each line")
    return value


def _known_suffix(path: Path) -> str:
    """Return the suffix of a file in lower case.

    Raises InputError unless the file exists, is readable, and has a known type.
    """
    if path.is_dir():
        raise InputError(f"{path}: a directory where a file is needed; name one file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path (from {Path.cwd()})")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it; check its mode and owner")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown file type {path.suffix!r}; convert it to one of {', '.join(SUFFIXES)}")
    return suffix


def _nearest(column: str, names: Iterable[str]) -> str:
    """Describe the existing columns, at most ten, and the nearest name."""
    known = list(names)
    shown = ", ".join(map(_shown, known[:10])) + (", ..." if len(known) > 10 else "")
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(column.lower(), by_lower_case, n=1)
    meant = f"; did you mean {_shown(by_lower_case[close[0]])}?" if close else ""
    return f"the columns are {shown}{meant}" if known else "the row has no columns at all"


def _shown(name: str) -> str:
    # Without a header, the names are the first row's text.
    return repr(name) if len(name) <= 40 else f"a name of {len(name)} characters"


def _iconv(encoding: str, path: Path) -> str:
    return f"iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > converted{path.suffix}"
