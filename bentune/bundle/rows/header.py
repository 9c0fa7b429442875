"""Check that a file has the columns that are asked for, with a message that never holds a row's text.

Where a header is missing, the first row would be taken for it, and a list of the columns would show that row.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from bentune.bundle.errors import InputError
from bentune.bundle.rows.form import UTF8, FileForm
from bentune.bundle.rows.read import columns, every_row
from bentune.bundle.rows.row import SHOWN_CHARACTERS, nearest

LOOKED_AT = 200
MOST_WORDS = 4


def require_columns(path: Path, wanted: Iterable[tuple[str, str]], form: FileForm = UTF8) -> None:
    """Raise InputError for a column that the file does not have.

    `wanted` are pairs of the setting that names a column, and the column.
    """
    names = columns(path, form)
    missing = [(key, name) for key, name in wanted if name not in names]
    if not missing:
        return
    key, name = missing[0]
    if form.header is None and looks_like_a_row(names, path, form):
        raise InputError(
            f"{key}: {path} has no column {name!r}, and its first line looks like a row of {len(names)} fields: where "
            "the file has no header, name its columns in their order (data.header in a recipe, --header for "
            "`bentune predict`)"
        )
    raise InputError(f"{key}: {path} has no column {name!r}; {nearest(name, names)}")


def looks_like_a_row(names: Sequence[str], path: Path, form: FileForm) -> bool:
    """Return True if the names of the columns are probably the first row of a file without a header.

    They have many words, are long, are numbers, or are values that the same column has again.
    """
    if any(len(name) > SHOWN_CHARACTERS or len(name.split()) > MOST_WORDS or _is_number(name) for name in names):
        return True
    rows = islice(every_row(path, form), LOOKED_AT)
    return any(row.values.get(name) == name for row in rows for name in names)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
