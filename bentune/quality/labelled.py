"""Reads the rows to compare on, and leaves out those that say nothing: copies, and rows that a side was trained on."""

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bentune.bundle.errors import InputError
from bentune.bundle.labels import labels_of
from bentune.bundle.manifest import Columns
from bentune.bundle.rows import Row, read_rows, text_of
from bentune.bundle.seen_rows import SeenRows, row_key

LABEL = "label"
NOTHING = "(none)"
SHOWN = 5
SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows with their labels: `gold` are indices into the labels, `numbers` count the file's rows from 0.

    Where rows have any number of labels `gold` is int64 [rows, labels], 1 for each that a row has.
    `values` has for each column of a slice its value in each row, as text.
    """

    path: Path
    texts: list[tuple[str, str | None]]
    gold: npt.NDArray[np.int64]
    numbers: list[int]
    keys: list[bytes]
    values: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Labelled":
        """The chosen rows, bool [rows]. Raises InputError when there are none."""
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
        """sha256 over the sorted keys of the rows with their labels: the same rows have the same in any order."""
        labelled = sorted(key + str(label).encode() for key, label in zip(self.keys, self.gold.tolist(), strict=True))
        return hashlib.sha256(b"".join(labelled)).hexdigest()


def read_labelled(
    path: Path,
    columns: Columns,
    labels: Sequence[str],
    *,
    slices: Iterable[str] = (),
    renamed: Mapping[str, str] | None = None,
    label_column: str = LABEL,
    multi_label: bool = False,
    separator: str | None = None,
    most: int = 1_000_000,
) -> Labelled:
    """Read every row of a CSV, TSV or JSON lines file.

    `renamed` are the recipe's own names of labels; `separator` is between those of a row that may have any number.
    Raises InputError for a row that cannot be used, more than `most`
    rows, and a column to slice by that no row has or that holds the texts.
    """
    slices = list(dict.fromkeys(slices))
    if bad := {columns.text, columns.text_pair} & {*slices}:
        raise InputError(f"slices: {min(filter(None, bad))!r} holds the texts; slice by another column")
    index = {label: number for number, label in enumerate(labels)}
    found = Labelled(path, [], np.empty(0, np.int64), [], [], {column: [] for column in slices})
    gold: list[int | npt.NDArray[np.int64]] = []
    missing = set(slices)
    seen: dict[str, None] = {}
    for row in read_rows(path):
        if len(gold) == most:
            raise InputError(f"{path}: more than {most} rows; give fewer, or raise compare.max_rows")
        texts = text_of(row, columns.text, path), text_of(row, columns.text_pair, path) if columns.text_pair else None
        found.texts.append(texts)
        found.keys.append(row_key(*texts))
        found.numbers.append(row.number)
        named = _several(row, label_column, separator, path) if multi_label else [_gold(row, label_column, path)]
        numbers = [index[_known(name, row, index, renamed or {}, path)] for name in named]
        gold.append(_marked(numbers, len(index)) if multi_label else numbers[0])
        for column in slices:
            found.values[column].append(_shown(row.values.get(column)))
        missing -= row.values.keys()
        seen |= dict.fromkeys(row.values)
    if missing:
        close = difflib.get_close_matches(min(missing), list(seen), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the columns are {', '.join(map(repr, list(seen)[:10]))}"
        raise InputError(f"{path}: no row has the column {min(missing)!r} to slice by; {hint}")
    return Labelled(path, found.texts, np.array(gold, np.int64), found.numbers, found.keys, found.values)


def without_copies(rows: Labelled) -> Labelled:
    """The first of each text: a row that is there twice would count as two that agree."""
    first: dict[bytes, int] = {}
    for place, key in enumerate(rows.keys):
        first.setdefault(key, place)
    kept = np.zeros(len(rows), dtype=bool)
    kept[list(first.values())] = True
    return rows.where(kept)


def trained_on(rows: Labelled, filters: Mapping[str, SeenRows]) -> npt.NDArray[np.bool_]:
    """Bool [rows]: whether any side was trained on the row."""
    seen = np.zeros(len(rows), dtype=bool)
    for one in filters.values():
        seen |= one.trained_on(rows.keys)
    return seen


def refuse_trained(rows: Labelled, filters: Mapping[str, SeenRows]) -> None:
    """Raise InputError that says how many rows which side was trained on, and how sure that is."""
    for name, one in filters.items():
        places = np.flatnonzero(one.trained_on(rows.keys))
        if len(places):
            first = ", ".join(str(rows.numbers[place]) for place in places[:SHOWN])
            more = ", ..." if len(places) > SHOWN else ""
            raise InputError(
                f"{rows.path}: {name} was trained on {len(places)} of the {len(rows)} rows (numbers {first}{more}), "
                "which says nothing of rows that are new to it; give held-out rows, or leave those out with "
                f"--leave-out-trained (its filter takes {odds(one)} new rows for one of them)"
            )


def odds(one: SeenRows) -> str:
    """How often its filters say yes to a new row, in words."""
    return f"one in {1 / max(one.false_positive_rate, 1e-12):,.0f}"


def _gold(row: Row, column: str, path: Path) -> str:
    value = row.values.get(column)
    if value is None or isinstance(value, bool | list | dict):
        raise InputError(
            f"{_place(row, path)}: column {column!r} has no label; fill it in, or name another with --label-column"
        )
    return _text(value)


def _several(row: Row, column: str, separator: str | None, path: Path) -> list[str]:
    try:
        return labels_of(row.values.get(column), separator)
    except ValueError as problem:
        raise InputError(f"{_place(row, path)}: column {column!r} {problem}") from None


def _marked(numbers: list[int], count: int) -> npt.NDArray[np.int64]:
    marks = np.zeros(count, dtype=np.int64)
    marks[numbers] = 1
    return marks


def _place(row: Row, path: Path) -> str:
    return f"{path}, row {row.number} (line {row.line})"


def _known(label: str, row: Row, index: Mapping[str, int], renamed: Mapping[str, str], path: Path) -> str:
    """The label as the models have it."""
    label = renamed.get(label, label) if label not in index else label
    if label not in index:
        place = _place(row, path)
        known = ", ".join(list(index)[:10])
        shown = repr(label) if len(label) <= SHOWN_CHARACTERS else f"a label of {len(label)} characters"
        raise InputError(f"{place}: {shown} is none of the models' labels, which are {known}")
    return label


def _text(value: object) -> str:
    """A value as text; 5, 5.0 and "5" are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _shown(value: object) -> str:
    return NOTHING if value is None or value == "" else _text(value)[:SHOWN_CHARACTERS]
