"""Rows of CSV and TSV files."""

import csv
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from bentune.bundle.rows.form import FileForm
from bentune.bundle.rows.lines import MAX_ROW_BYTES, BrokenLine, Lines
from bentune.bundle.rows.row import Row, shown
from bentune.bundle.rows.swallowed import Swallowed

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHERS = (";", "\t")
"""Delimiters that a .csv has where its header has no comma; spreadsheets write them in many countries."""
WITHOUT_QUOTES = "quoting none (data.quoting in a recipe, --quoting for `bentune predict`)"
SHOWN_LINES = 10

QUOTING: dict[str, Literal[0, 3]] = {"minimal": csv.QUOTE_MINIMAL, "none": csv.QUOTE_NONE}

_field_limit_lock = threading.Lock()


def csv_rows(lines: Lines, suffix: str, form: FileForm, label: str | None) -> Iterator[Row]:
    """Yield the rows after the header; those that cannot be read have a problem.

    `label` is the column of the labels, by which rows in a quoted field are recognized. Raises InputError where rows
    would be lost: for a quote that is never closed, and one that swallows rows.
    """
    delimiter = form.delimiter or _delimiter(lines, DELIMITERS[suffix])
    records = _records(lines, suffix, delimiter, form)
    names: Sequence[str] = form.header or _header(lines, records)
    named = [place for place, name in enumerate(names) if name]
    swallowed = Swallowed(delimiter, names, label) if form.quoting is None else None
    number = 0
    for number, found in enumerate(records):
        if isinstance(found, str):
            yield Row(number, lines.row_line, {}, found)
            continue
        if swallowed is not None:
            swallowed.read(lines.row_line, lines.row, found)
        if len(found) != len(names):
            yield Row(number, lines.row_line, {}, _wrong_number(len(found), len(names), delimiter))
        else:
            yield Row(number, lines.row_line, {names[place]: found[place] for place in named})
    if swallowed is not None and (line := swallowed.found()) is not None:
        raise lines.error(
            f"a quote that opens in this line encloses {line.rows:,} lines that look like rows of their own; with "
            f"quotes the file gives {number + 1:,} rows. Where quotes belong to the texts, give {WITHOUT_QUOTES}: "
            f"{_without_quotes(lines, suffix, form)}. Where the field is right, give quoting minimal",
            line.number,
        )


def _delimiter(lines: Lines, usual: str) -> str:
    """Return the usual delimiter, or for a .csv another one that its first line has instead."""
    first = ""
    while not lines.ended and not first.strip():
        try:
            first = lines.peek()
        except BrokenLine as broken:
            raise lines.error(str(broken)) from None
        if not first:
            break
        if not first.strip():
            next(lines)
            lines.start_row()
    if usual == "," and "," not in first:
        return next((other for other in OTHERS if other in first), usual)
    return usual


def _header(lines: Lines, records: Iterator[list[str] | str]) -> list[str]:
    """Return the names of the columns, "" for unnamed ones, which are not read."""
    header = next(records, [])
    if isinstance(header, str):
        raise lines.error(header, lines.row_line)
    names = [name for name in header if name]
    for name in names:
        if names.count(name) > 1:
            raise lines.error(f"column {shown(name)} is in the header twice; rename or remove one", lines.row_line)
    lines.start_row()
    return header


def _wrong_number(fields: int, columns: int, delimiter: str) -> str:
    separator = {",": "comma", "\t": "tab", ";": "semicolon"}.get(delimiter, repr(delimiter))
    if columns == 1:
        return f"fields in this row: {fields}, in the header: 1; is there another delimiter (data.delimiter)?"
    return (
        f"fields in this row: {fields}, in the header: {columns}; "
        f"put quotes around a field that holds a {separator} or a newline, and leave no field out"
    )


def _records(lines: Lines, suffix: str, delimiter: str, form: FileForm) -> Iterator[list[str] | str]:
    """Yield the fields of each row, the header's included, except blank lines; or why it cannot be read."""
    # Strict, because the csv module otherwise takes a quote that is never closed for one huge field.
    reader = csv.reader(lines, delimiter=delimiter, strict=True, quoting=QUOTING[form.quoting or "minimal"])
    while True:
        try:
            with _large_fields():
                found: list[str] | str | None = next(reader, None)
        except csv.Error as error:
            found = _problem(lines, error, suffix, form)
        except BrokenLine as broken:
            if lines.several:  # inside a quoted field, whose other lines are lost with it
                raise lines.error(str(broken)) from None
            found = str(broken)
        if found is None:
            return
        if found:
            yield found
        lines.start_row()


@contextmanager
def _large_fields() -> Iterator[None]:
    """Let the csv module accept fields up to a row's bound, for the length of one row.

    Its limit, 128 KiB unless changed, is one number for the whole process; other code finds it as it was.
    """
    with _field_limit_lock:
        before = csv.field_size_limit(MAX_ROW_BYTES)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _problem(lines: Lines, error: csv.Error, suffix: str, form: FileForm) -> str:
    """Return why one line cannot be read; raise InputError where several lines would be lost."""
    if lines.ended:
        raise lines.error(
            "a quote is opened in the row that starts here and never closed; close it, and write a quote that belongs "
            f'to a quoted text twice (""). Where quotes belong to the texts, give {WITHOUT_QUOTES}: '
            f"{_without_quotes(lines, suffix, form)}",
            lines.row_line,
        ) from None
    if "new-line character" in str(error):
        raise lines.error(
            "a carriage return without a line feed outside quotes; put quotes around the field, or, where all lines "
            f"end so, convert the file: tr '\\r' '\\n' < {shlex.quote(str(lines.path))} > converted{lines.path.suffix}"
        ) from None
    problem = (
        f"a closing quote with text after it, in the row that starts at line {lines.row_line}; put quotes around the "
        'whole field, and write a quote that belongs to the text twice ("")'
    )
    if lines.several:
        raise lines.error(
            f"{problem}. Where quotes belong to the texts, give {WITHOUT_QUOTES}: "
            f"{_without_quotes(lines, suffix, form)}"
        ) from None
    return f"{problem}, or give {WITHOUT_QUOTES}"


def _without_quotes(lines: Lines, suffix: str, form: FileForm) -> str:
    """Return, in words, what the file gives without quoting, and in which lines a field begins with a quote."""
    rows = broken = 0
    with lines.again() as file:
        again = Lines(lines.path, file, form.encoding, lines.again)
        for row in csv_rows(again, suffix, form.model_copy(update={"quoting": "none"}), None):
            rows += 1
            broken += row.problem is not None
    quoted: list[int] = []
    with lines.again() as file:
        again = Lines(lines.path, file, form.encoding, lines.again)
        delimiter = form.delimiter or _delimiter(again, DELIMITERS[suffix])
        for line in again:
            if any(field.startswith('"') for field in line.split(delimiter)):
                quoted.append(again.number)
            again.start_row()
    shown = ", ".join(map(str, quoted[:SHOWN_LINES])) + (", ..." if len(quoted) > SHOWN_LINES else "")
    unreadable = f", {broken:,} of them unreadable" if broken else ""
    return f"that gives {rows:,} rows{unreadable}; lines with a field that begins with a quote: {shown}"
