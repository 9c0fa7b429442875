"""What held-out rows take along beside texts and label: where each comes from, and values of columns of the source."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from training.recipe.data import label_text

NOTHING = "(none)"
SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Carried:
    """`origins` name each row for people; `values` has for each column its value in each row, as text."""

    origins: list[str]
    values: dict[str, list[str]]


def read_carried(file: Path, columns: Sequence[str]) -> Carried:
    """Read them from a split that the data stage wrote."""
    names = ["origin", "also"] if columns else ["origin"]
    table = pq.read_table(file, columns=names)
    values: dict[str, list[str]] = {column: [] for column in columns}
    for line in table["also"].to_pylist() if columns else []:
        row = json.loads(line or "{}")
        for column in columns:
            values[column].append(_shown(row.get(column)))
    return Carried(table["origin"].to_pylist(), values)


def _shown(value: object) -> str:
    """A value as a comparison of versions shows it; 5, 5.0 and "5" are one."""
    return NOTHING if value is None or value == "" else label_text(value)[:SHOWN_CHARACTERS]
