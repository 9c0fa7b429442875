"""Labelled rows of a comparison, without duplicates and without training rows of a model."""

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Gold
from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Columns
from bentune.bundle.rows.read import read_rows
from bentune.bundle.rows.row import Row, text_of
from bentune.bundle.seen_rows import SeenRows, row_key
from bentune.bundle.targets.target import Target

LABEL = "label"
NOTHING = "(none)"
SHOWN = 5
SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled rows: `gold` has the target's type and shape, `numbers` count the file's rows from 0.

    `values` has, for each column of slices, its value in each row as text.
    """

    path: Path
    texts: list[tuple[str, str | None]]
    gold: Gold
    numbers: list[int]
    keys: list[bytes]
    values: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Labelled":
        """Return the rows where `chosen`, bool [rows], is true.

        Raises InputError when there are none.
        """
        places = np.flatnonzero(chosen).tolist()
        if not places:
            raise InputError(f"{self.path}: no row is left to compare on; give rows that neither side has seen")
        return Labelled(
            self.path,
            [self.texts[place] for place in places],
            self.gold[places],
            [self.numbers[place] for place in places],
            [self.keys[place] for place in places],
            {column: [values[place] for place in places] for column, values in self.values.items()},
        )

    def fingerprint(self) -> str:
        """Return the sha256 of the sorted keys and labels of the rows.

        It does not depend on the order of the rows.
        """
        labelled = sorted(key + str(label).encode() for key, label in zip(self.keys, self.gold.tolist(), strict=True))
        return hashlib.sha256(b"".join(labelled)).hexdigest()


def read_labelled(
    path: Path,
    columns: Columns,
    target: Target,
    *,
    slices: Iterable[str] = (),
    renamed: Mapping[str, str] | None = None,
    label_column: str = LABEL,
    separator: str | None = None,
    most: int = 1_000_000,
) -> Labelled:
    """Read every row of a CSV, TSV or JSON lines file.

    `renamed` maps the recipe's names of labels to the models' names; `separator` splits the labels of a multi-label
    row. Raises InputError for an invalid row, for more than `most` rows, and for a slice column that no row has or that
    holds the texts.
    """
    slices = list(dict.fromkeys(slices))
    if bad := {columns.text, columns.text_pair} & {*slices}:
        raise InputError(f"slices: {min(filter(None, bad))!r} holds the texts; slice by another column")
    found = Labelled(path, [], np.empty(0, np.int64), [], [], {column: [] for column in slices})
    gold: list[Any] = []
    missing = set(slices)
    seen: dict[str, None] = {}
    for row in read_rows(path):
        if len(gold) == most:
            raise InputError(f"{path}: more than {most} rows; give fewer, or raise compare.max_rows")
        texts = text_of(row, columns.text, path), text_of(row, columns.text_pair, path) if columns.text_pair else None
        found.texts.append(texts)
        found.keys.append(row_key(*texts))
        found.numbers.append(row.number)
        try:
            gold.append(target.parse(row.values.get(label_column), separator=separator, renamed=renamed or {}))
        except ValueError as problem:
            hint = "; fill it in, or name another with --label-column" if row.values.get(label_column) is None else ""
            raise InputError(f"{_place(row, path)}: column {label_column!r} {problem}{hint}") from None
        for column in slices:
            found.values[column].append(_shown(row.values.get(column)))
        missing -= row.values.keys()
        seen |= dict.fromkeys(row.values)
    if missing:
        close = difflib.get_close_matches(min(missing), list(seen), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the columns are {', '.join(map(repr, list(seen)[:10]))}"
        raise InputError(f"{path}: no row has the column {min(missing)!r} to slice by; {hint}")
    return Labelled(path, found.texts, np.array(gold, target.gold_type), found.numbers, found.keys, found.values)


def without_copies(rows: Labelled) -> Labelled:
    """Return the first row of each text.

    A duplicate would count as two independent rows.
    """
    first: dict[bytes, int] = {}
    for place, key in enumerate(rows.keys):
        first.setdefault(key, place)
    kept = np.zeros(len(rows), dtype=bool)
    kept[list(first.values())] = True
    return rows.where(kept)


def trained_on(rows: Labelled, filters: Mapping[str, SeenRows]) -> npt.NDArray[np.bool_]:
    """Return bool [rows]: true for rows that any side was trained on."""
    seen = np.zeros(len(rows), dtype=bool)
    for one in filters.values():
        seen |= one.trained_on(rows.keys)
    return seen


def refuse_trained(rows: Labelled, filters: Mapping[str, SeenRows]) -> None:
    """Raise InputError if a side was trained on some of the rows, and name these rows."""
    for name, one in filters.items():
        places = np.flatnonzero(one.trained_on(rows.keys))
        if len(places):
            first = ", ".join(str(rows.numbers[place]) for place in places[:SHOWN])
            more = ", ..." if len(places) > SHOWN else ""
            raise InputError(
                f"{rows.path}: {name} was trained on {len(places)} of the {len(rows)} rows (numbers {first}{more}), "
                "so the result would not hold for new rows; give test rows, or leave those out with "
                f"--leave-out-trained (its filter takes {odds(one)} new rows for one of them)"
            )


def odds(one: SeenRows) -> str:
    """Format the rate at which the filters take a new row for a trained one."""
    return f"one in {1 / max(one.false_positive_rate, 1e-12):,.0f}"


def _place(row: Row, path: Path) -> str:
    return f"{path}, row {row.number} (line {row.line})"


def _text(value: object) -> str:
    """Format a value as text; 5, 5.0 and "5" are equal."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _shown(value: object) -> str:
    return NOTHING if value is None or value == "" else _text(value)[:SHOWN_CHARACTERS]
