"""Rows that the data stage wrote, read as a whole or in parts, and their tokenization for torch."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import BatchEncoding, PreTrainedTokenizerBase

from bentune.bundle.arrays import Ints
from training.recipe.data import label_text

PART = 10_000
"""Number of rows whose texts are in memory at once when a file is read in parts."""
NOTHING = "(none)"
SHOWN_CHARACTERS = 40

Labels = npt.NDArray[Any]
"""One entry a row: int64 [rows], int64 [rows, labels] with 1 for each label of a row, or float64 [rows]."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts, or pairs where `pairs` is not None, with the target's labels."""

    texts: list[str]
    pairs: list[str] | None
    labels: Labels

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def paired(self) -> bool:
        """True for pairs of texts."""
        return self.pairs is not None

    def take(self, chosen: Ints) -> "Rows":
        """Select the rows of these numbers."""
        pairs = [self.pairs[row] for row in chosen] if self.pairs is not None else None
        return Rows([self.texts[row] for row in chosen], pairs, self.labels[chosen])

    def parts(self, chosen: Ints | None = None) -> Iterator["Rows"]:
        """Yield all rows, or those of these numbers, at once."""
        yield self if chosen is None else self.take(chosen)

    def encode(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> BatchEncoding:
        """Tokenize without padding, truncated to `max_tokens`."""
        encoded: BatchEncoding = tokenizer(self.texts, self.pairs, truncation=True, max_length=max_tokens)
        return encoded


class StoredRows(Protocol):
    """Rows whose labels are in memory, but not necessarily their texts."""

    @property
    def labels(self) -> Labels:
        """Labels of all rows, as in `Rows`."""

    @property
    def paired(self) -> bool:
        """True for pairs of texts."""

    def __len__(self) -> int: ...

    def take(self, chosen: Ints) -> Rows:
        """Load the rows of these numbers into memory."""

    def parts(self, chosen: Ints | None = None) -> Iterator[Rows]:
        """Yield all rows in parts, or those of the `chosen` numbers.

        The numbers are sorted and may repeat.
        """


@dataclass(frozen=True, slots=True)
class RowFile:
    """One part of the split, on disk."""

    file: Path
    paired: bool
    labels: Labels = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: Ints) -> Rows:
        """Load the rows of these numbers into memory."""
        unique, places = np.unique(chosen, return_inverse=True)
        return joined(self.parts(unique)).take(places)

    def parts(self, chosen: Ints | None = None) -> Iterator[Rows]:
        """Yield all rows in parts, or those of the `chosen` numbers.

        The numbers are sorted and may repeat.
        """
        start = 0
        with pq.ParquetFile(self.file) as stored:
            for batch in stored.iter_batches(PART, columns=["text", "text_pair", "label"]):
                end = start + len(batch)
                if chosen is None:
                    yield _rows(batch)
                else:
                    inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, end)] - start
                    if len(inside):
                        yield _rows(batch.take(pa.array(inside)))
                start = end


def open_rows(file: Path) -> RowFile:
    """Open one part of the split; its texts stay on disk."""
    with pq.ParquetFile(file) as stored:
        first = next(stored.iter_batches(1, columns=["text_pair"]), None)
        labels = label_column(stored.read(columns=["label"]))
    return RowFile(file, first is not None and first["text_pair"][0].is_valid, labels)


def read_rows(file: Path) -> Rows:
    """Read one part of the split."""
    return joined(open_rows(file).parts())


def label_column(table: pa.Table | pa.RecordBatch) -> Labels:
    """Convert the labels to the form of `Rows`."""
    column = table["label"]
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy())
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    marks = whole.flatten().to_numpy().astype(np.int64)
    return np.asarray(marks.reshape(-1, column.type.list_size))


def labels_in(file: Path) -> Labels:
    """Read the labels of one part of the split."""
    with pq.ParquetFile(file) as stored:
        return label_column(stored.read(columns=["label"]))


def joined(parts: Iterable[Rows]) -> Rows:
    """Concatenate parts in memory."""
    every = list(parts)
    if not every:
        return Rows([], None, np.empty(0, dtype=np.int64))
    pairs = None if any(part.pairs is None for part in every) else [*chain(*(part.pairs or [] for part in every))]
    return Rows([*chain(*(part.texts for part in every))], pairs, np.concatenate([part.labels for part in every]))


def of_size(parts: Iterable[Rows], size: int | None = None) -> Iterator[Rows]:
    """Regroup rows into parts of `size`, by default PART; the last may be smaller."""
    size = size or PART
    waiting: list[Rows] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= size:
            some = joined(waiting)
            whole = len(some) // size * size
            for start in range(0, whole, size):
                yield some.take(np.arange(start, start + size))
            waiting = [some.take(np.arange(whole, len(some)))]
    if sum(map(len, waiting)):
        yield joined(waiting)


def _rows(batch: pa.RecordBatch) -> Rows:
    pairs = batch["text_pair"].to_pylist()
    return Rows(batch["text"].to_pylist(), pairs if pairs and pairs[0] is not None else None, label_column(batch))


@dataclass(frozen=True, slots=True)
class Carried:
    """Further columns of test rows: the `origins` of the rows, and per source column the `values` as text."""

    origins: list[str]
    values: dict[str, list[str]]


def read_carried(file: Path, columns: Sequence[str]) -> Carried:
    """Read origins and columns from one part of the split."""
    names = ["origin", "also"] if columns else ["origin"]
    table = pq.read_table(file, columns=names)
    values: dict[str, list[str]] = {column: [] for column in columns}
    for line in table["also"].to_pylist() if columns else []:
        row = json.loads(line or "{}")
        for column in columns:
            values[column].append(_shown(row.get(column)))
    return Carried(table["origin"].to_pylist(), values)


def _shown(value: object) -> str:
    """Format a value as the comparison of versions does; 5, 5.0 and "5" are the same."""
    return NOTHING if value is None or value == "" else label_text(value)[:SHOWN_CHARACTERS]
