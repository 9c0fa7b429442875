"""Rows of Parquet files and of Excel sheets."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from bentune.bundle.errors import InputError
from bentune.bundle.rows.row import Row

ROWS_AT_ONCE = 1_000
MAX_SHEET_BYTES = 500_000_000
"""Bytes of an Excel file once it is unpacked: it is in memory as a whole."""


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns. Raises InputError."""
    names: list[str] = _parquet(path).schema_arrow.names
    return names


def parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield the rows, of all columns or of some; `line` is the row's number and 1.

    A number of a class is replaced by the class's name where the file's metadata has the names, as `datasets` writes
    them. Raises InputError.
    """
    import pyarrow as pa

    file = _parquet(path)
    classes = class_names(file.schema_arrow.metadata or {})
    number = 0
    try:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(columns) if columns is not None else None):
            for values in batch.to_pylist():
                named = {name: named_class(values[name], names) for name, names in classes.items() if name in values}
                yield Row(number, number + 1, values | named)
                number += 1
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read after row {number}: {_line(error)}") from error


def class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes of each column that `datasets` has written as numbers."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        found = {name: _names(feature) for name, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    return {name: names for name, names in found.items() if names}


def named_class(value: object, names: Sequence[str]) -> object:
    """Return the name of a class for its number, or for each number in a list; anything else stays."""
    if isinstance(value, list):
        return [named_class(one, names) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return value


def _names(feature: Any) -> list[str]:
    feature = feature[0] if isinstance(feature, list) and feature else feature
    inner = feature.get("feature")
    if inner is not None:
        return _names(inner)
    return [str(name) for name in feature["names"]] if feature.get("_type") == "ClassLabel" else []


def _parquet(path: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: Parquet is read by pyarrow: pip install pyarrow") from None
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a Parquet file: {_line(error)}") from error


def excel_rows(path: Path, header: Sequence[str] | None) -> Iterator[Row]:
    """Yield the rows of the only sheet that is not empty; `line` is that of the sheet.

    Empty rows are left out, empty cells are None. Raises InputError.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise InputError(f"{path}: Excel files are read by python-calamine: pip install python-calamine") from None
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(one.file_size for one in packed.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is not an Excel file (.xlsx): {_line(error)}") from error
    if size > MAX_SHEET_BYTES:
        raise InputError(f"{path}: more than {MAX_SHEET_BYTES // 1_000_000} MB once unpacked; save it as CSV UTF-8")
    try:
        book = CalamineWorkbook.from_path(str(path))
        filled = [name for name in book.sheet_names if (one := book.get_sheet_by_name(name)).height and one.width]
        if len(filled) > 1:
            raise InputError(
                f"{path}: {len(filled)} of its sheets are not empty, and one is read: remove the others, or save the "
                "one with the rows as CSV UTF-8"
            )
        sheet = book.get_sheet_by_name(filled[0]) if filled else book.get_sheet_by_index(0)
        names = list(header) if header is not None else None
        number = 0
        for line, cells in enumerate(sheet.iter_rows(), sheet.start[0] + 1 if sheet.start else 1):
            values = [_cell(cell) for cell in cells]
            if all(value is None for value in values):
                continue
            if names is None:
                names = ["" if value is None else str(value).strip() for value in values]
                continue
            yield Row(number, line, {name: value for name, value in zip(names, values, strict=False) if name})
            number += 1
    except (CalamineError, OSError) as error:
        raise InputError(f"{path} cannot be read: {_line(error)}") from error


def _cell(value: object) -> object:
    """Return a cell's value: None for an empty one, whole numbers as such, dates in ISO format.

    Excel has one type of numbers, which is read as float.
    """
    if value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.isoformat() if isinstance(value, date | time) else value


def _line(error: Exception) -> str:
    """Return a library's message on one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
