"""A row of a file, and the text in one of its columns."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bentune.bundle.errors import InputError

SHOWN_COLUMNS, SHOWN_CHARACTERS = 10, 40


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `number` counts from 0, `line` is the line it starts at and counts from 1.

    `problem` is set for a row that cannot be read. It then has no values.
    """

    number: int
    line: int
    values: Mapping[str, object]
    problem: str | None = None


def text_of(row: Row, column: str, path: Path) -> str:
    """Return the text in one column of a row, unchanged.

    Raises:
        InputError: the column is missing, or its value is not a string, has nothing in it, or is not valid Unicode.

    """
    place = f"{path}, row {row.number} (line {row.line})"
    if column not in row.values:
        raise InputError(f"{place}: there is no column {column!r}; {nearest(column, row.values)}")
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


def nearest(column: str, names: Iterable[str]) -> str:
    """Return which columns there are, ten at most, and which was probably meant."""
    known = list(names)
    more = ", ..." if len(known) > SHOWN_COLUMNS else ""
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(column.lower(), by_lower_case, n=1)
    meant = f"; did you mean {shown(by_lower_case[close[0]])}?" if close else ""
    names_shown = ", ".join(map(shown, known[:SHOWN_COLUMNS])) + more
    return f"the columns are {names_shown}{meant}" if known else "the row has no columns at all"


def shown(name: str) -> str:
    """Return a column's name for a message; the length of one that is too long for a name."""
    return repr(name) if len(name) <= SHOWN_CHARACTERS else f"a name of {len(name)} characters"
