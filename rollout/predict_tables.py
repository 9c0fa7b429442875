"""Predictions as a table: the input's columns, and the answer to each row beside them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from bentune.bundle.errors import InputError
from bentune.bundle.rows.row import Row

LABEL, SCORE, SCORES, ERROR = ANSWER = ("predicted_label", "predicted_score", "predicted_scores", "predicted_error")
"""Columns of the best label, its score, all labels with their scores as JSON, and why a row has none of them."""
ROWS_AT_ONCE = 1_000

Writer: TypeAlias = Callable[[Sequence[str], Iterable[Row], Path, Path], None]
"""Writes the output from the input's columns and rows, and the partial with a line for each row."""


def table_writer(output: Path) -> Writer | None:
    """Return the writer of a table by the suffix of the output; None for JSON lines.

    Raises InputError for another suffix, and where the package that writes it is not installed.
    """
    match output.suffix.lower():
        case ".csv":
            return _write_csv
        case ".parquet":
            try:
                import pyarrow.parquet  # noqa: F401
            except ImportError:
                raise InputError(f"{output}: Parquet is written by pyarrow: pip install pyarrow") from None
            return _write_parquet
        case "" | ".jsonl" | ".ndjson" | ".json":
            return None
    raise InputError(f"{output}: the output is JSON lines (.jsonl), .csv or .parquet; give one of these suffixes")


def _write_csv(columns: Sequence[str], rows: Iterable[Row], partial: Path, output: Path) -> None:
    found = _joined(rows, partial)
    beside = output.with_name(output.name + ".writing")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, *ANSWER], lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in found)
    beside.replace(output)


def _write_parquet(columns: Sequence[str], rows: Iterable[Row], partial: Path, output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = _joined(rows, partial)
    schema = pa.schema([(name, pa.float64() if name == SCORE else pa.string()) for name in (*columns, *ANSWER)])
    beside = output.with_name(output.name + ".writing")
    with pq.ParquetWriter(beside, schema) as writer:
        for part in _batched(found):
            table = {name: [_cell(row, name) for row in part] for name in schema.names}
            writer.write_table(pa.table(table, schema=schema))
    beside.replace(output)


def _joined(rows: Iterable[Row], partial: Path) -> Iterator[dict[str, Any]]:
    """Yield each row with its answer."""
    with partial.open(encoding="utf-8") as lines:
        for row, line in zip(rows, lines, strict=True):
            yield _row(row, line)


def require_free(columns: Sequence[str]) -> None:
    """Raise InputError where the input has a column that is called as one of the answer."""
    if taken := set(columns) & set(ANSWER):
        raise InputError(f"the input has a column {min(taken)!r}, as the output has: rename it, or write JSON lines")


def _row(row: Row, line: str) -> dict[str, Any]:
    answer = json.loads(line)
    if "error" in answer:
        return {**row.values, ERROR: answer["error"]}
    best: Mapping[str, Any] = answer["prediction"][0]
    scores = json.dumps(answer["prediction"], ensure_ascii=False)
    return {**row.values, LABEL: best["label"], SCORE: best["score"], SCORES: scores}


def _cell(row: Mapping[str, Any], name: str) -> float | str | None:
    value = row.get(name)
    return value if name == SCORE else _text(value)


def _text(value: object) -> str | None:
    """Return a value as a text: lists and objects as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _batched(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while part := list(islice(rows, ROWS_AT_ONCE)):
        yield part
