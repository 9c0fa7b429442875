"""Rows of JSON lines files, and of JSON files with one list of objects."""

import json
from collections.abc import Iterator, Mapping
from typing import IO

from bentune.bundle.errors import InputError
from bentune.bundle.rows.lines import BrokenLine, Lines
from bentune.bundle.rows.row import Row

MAX_ARRAY_BYTES = 200_000_000
"""Bytes of a JSON file with one list, which is in memory as a whole; JSON lines have no such bound."""
DEPTH = 8
TOO_DEEP = "a JSON number is too long or lists are nested too deeply; shorten it"


def json_line_rows(lines: Lines) -> Iterator[Row]:
    """Yield an object a line; a line that is none has a problem. Blank lines are no rows."""
    number = 0
    while True:
        lines.start_row()
        try:
            line = next(lines, None)
            if line is None:
                return
            if not line.strip():
                continue
            row = Row(number, lines.number, _object(line))
        except BrokenLine as broken:
            row = Row(number, lines.number, {}, str(broken))
        yield row
        number += 1


def json_array_rows(file: IO[bytes], encoding: str | None) -> Iterator[Row]:
    """Yield the objects of one list; `line` counts them. Raises InputError for another content."""
    data = file.read(MAX_ARRAY_BYTES + 1)
    if len(data) > MAX_ARRAY_BYTES:
        raise InputError(
            f"a JSON list of more than {MAX_ARRAY_BYTES // 1_000_000} MB; write JSON lines, an object a line"
        )
    try:
        found = json.loads(data.decode(encoding or "utf-8-sig"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise InputError(
            f"not {encoding or 'UTF-8'}: byte 0x{data[error.start]:02x} at byte offset {error.start}"
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON in line {error.lineno}, column {error.colno} ({error.msg})") from None
    except BrokenLine as broken:
        raise InputError(str(broken)) from None
    except (ValueError, RecursionError):
        raise InputError(TOO_DEEP) from None
    if not isinstance(found, list):
        raise InputError(f"a JSON {type(found).__name__} where a list of objects is needed; write [{{...}}, {{...}}]")
    for number, value in enumerate(found):
        if isinstance(value, dict):
            yield Row(number, number + 1, flat(value))
        else:
            yield Row(number, number + 1, {}, f"a JSON {type(value).__name__} where an object is needed")


def flat(values: dict[str, object]) -> Mapping[str, object]:
    """Return the values with those of inner objects beside them, under a path such as `meta.label`.

    A key that is there already, with a dot in it, stays. Objects deeper than DEPTH are not looked into.
    """
    inner = {key: value for key, value in values.items() if isinstance(value, dict)}
    found = dict(values)
    for _ in range(DEPTH):
        if not inner:
            break
        below = {f"{path}.{key}": value for path, one in inner.items() for key, value in one.items()}
        found = below | found
        inner = {path: value for path, value in below.items() if isinstance(value, dict)}
    return found


def _object(line: str) -> Mapping[str, object]:
    try:
        value = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise BrokenLine(
            f"not valid JSON at column {error.colno} ({error.msg}); write one whole JSON object a line"
        ) from None
    except (ValueError, RecursionError):
        raise BrokenLine(TOO_DEEP) from None
    if not isinstance(value, dict):
        raise BrokenLine(f"a JSON {type(value).__name__} where an object is needed; write {{...}} on each line")
    return flat(value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        # json would keep the last of them and drop the first without a word.
        raise BrokenLine("a key is in the JSON object twice; rename or remove one")
    return values
