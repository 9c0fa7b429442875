"""Pool of the rows that were read: texts on disk, a few dozen bytes per row in memory."""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bentune.bundle.arrays import Ints
from bentune.bundle.seen_rows import labelled_key
from training.tasks.targets.target import TrainingTarget

POOL = pa.schema([("text", pa.string()), ("text_pair", pa.string()), ("origin", pa.string()), ("also", pa.string())])
CHUNK_ROWS = 1000
KEY_BYTES = 16
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """Valid row: `key` identifies texts and label, `text_key` is its row_key, `source` the number of its source.

    For multi-label rows `label` is the text of all labels. `group` and `time` are None unless the recipe splits by
    them.
    """

    text: str
    text_pair: str | None
    label: str
    origin: str
    also: str | None
    key: bytes
    text_key: bytes
    source: int
    group: int | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Checked rows of all sources as arrays with one entry a row; `file` holds their texts in the same order.

    `keys` and `text_keys` are uint64 [rows, 2], which sort as their bytes do. `label_ids` are places in `labels`, which
    are sorted. Each of `labels` is the target's reading of one row: the labels of a multi-label row count as one.
    `groups` (64-bit hashes) and `times` are None unless the recipe splits by them.
    """

    file: Path
    target: TrainingTarget
    labels: list[str]
    keys: Keys
    text_keys: Keys
    label_ids: npt.NDArray[np.int32]
    sources: npt.NDArray[np.int8]
    characters: npt.NDArray[np.uint32]
    words: npt.NDArray[np.uint32]
    groups: npt.NDArray[np.uint64] | None = None
    times: npt.NDArray[np.float64] | None = None
    chunk_rows: int = CHUNK_ROWS

    def __len__(self) -> int:
        return len(self.keys)

    def label_sets(self) -> list[list[str]]:
        """Return for each of `labels` the single labels that it stands for."""
        return [self.target.names(label) for label in self.labels]

    def tables(self, rows: Ints) -> Iterator[tuple[pa.Table, Ints]]:
        """Read these rows from the file, one chunk at a time, each with the row numbers."""
        wanted = np.zeros(len(self), dtype=np.bool_)
        wanted[rows] = True
        first = 0
        for batch in pq.ParquetFile(self.file).iter_batches(batch_size=self.chunk_rows):
            here = wanted[first : first + len(batch)]
            if here.any():
                yield pa.Table.from_batches([batch]).filter(pa.array(here)), np.flatnonzero(here) + first
            first += len(batch)

    def look_up(self, rows: Ints) -> dict[int, dict[str, Any]]:
        """Read the values of a few rows."""
        return {
            int(row): values
            for table, numbers in self.tables(rows)
            for row, values in zip(numbers, table.to_pylist(), strict=True)
        }

    def order(self) -> Ints:
        """Sort all rows by key, then group, then time, int64 [rows].

        So the order does not depend on the files.
        """
        ranks: list[npt.NDArray[Any]] = [self.keys[:, 1], self.keys[:, 0]]
        ranks = [values for values in (self.times, self.groups) if values is not None] + ranks
        return np.lexsort(ranks)


class PoolWriter:
    """Writer of a Pool, which takes rows one by one."""

    def __init__(self, file: Path, target: TrainingTarget, chunk_rows: int = CHUNK_ROWS) -> None:
        """Open the file.

        At most `chunk_rows` rows are in memory at a time, in writing and in reading.
        """
        self._file, self._target = file, target
        self._chunk_rows = chunk_rows
        self._writer = pq.ParquetWriter(file, POOL)
        self._chunk: list[CheckedRow] = []
        self._keys, self._text_keys = bytearray(), bytearray()
        self._label_ids, self._sources = array("i"), array("b")
        self._characters, self._words = array("I"), array("I")
        self._groups, self._times = array("Q"), array("d")
        self._labels: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, row: CheckedRow) -> None:
        """Add a row."""
        self._keys += row.key
        self._text_keys += row.text_key
        self._label_ids.append(self._labels.setdefault(row.label, len(self._labels)))
        self._sources.append(row.source)
        texts = (row.text, row.text_pair) if row.text_pair is not None else (row.text,)
        self._characters.append(sum(map(len, texts)))
        self._words.append(sum(len(text.split()) for text in texts))
        if row.group is not None:
            self._groups.append(row.group)
        if row.time is not None:
            self._times.append(row.time)
        self._chunk.append(row)
        if len(self._chunk) == self._chunk_rows:
            self._flush()

    def __len__(self) -> int:
        return len(self._label_ids)

    def close(self) -> Pool:
        """Write the last chunk and return the Pool, with sorted labels."""
        self._flush()
        self._writer.close()
        labels = sorted(self._labels)
        ranks = np.argsort(np.argsort(np.array(list(self._labels), dtype=object)))
        return Pool(
            file=self._file,
            target=self._target,
            labels=labels,
            keys=_halves(self._keys),
            text_keys=_halves(self._text_keys),
            label_ids=ranks.astype(np.int32)[np.frombuffer(self._label_ids, dtype=np.int32)],
            sources=np.frombuffer(self._sources, dtype=np.int8),
            characters=np.frombuffer(self._characters, dtype=np.uint32),
            words=np.frombuffer(self._words, dtype=np.uint32),
            groups=np.frombuffer(self._groups, dtype=np.uint64) if self._groups else None,
            times=np.frombuffer(self._times, dtype=np.float64) if self._times else None,
            chunk_rows=self._chunk_rows,
        )

    def _flush(self) -> None:
        if self._chunk:
            columns = {name: [getattr(row, name) for row in self._chunk] for name in POOL.names}
            self._writer.write_table(pa.table(columns, POOL))
            self._chunk = []


def _halves(keys: bytearray) -> Keys:
    return np.frombuffer(keys, dtype=">u8").reshape(-1, 2).astype(np.uint64)


@dataclass(frozen=True, slots=True)
class PoolRows:
    """Rows of a pool that form one part of the split."""

    pool: Pool
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Ints) -> "PoolRows":
        """Select the rows at these places, in their present order."""
        return replace(self, rows=self.rows[np.sort(chosen)])

    @property
    def label_ids(self) -> npt.NDArray[np.int32]:
        """Label of each row, as its index in the pool's labels."""
        return self.pool.label_ids[self.rows]

    @property
    def label_names(self) -> list[str]:
        """The pool's labels."""
        return self.pool.labels

    @property
    def groups(self) -> npt.NDArray[np.uint64]:
        """Group of each row. Raises ValueError where the pool has no groups."""
        return _known(self.pool.groups)[self.rows]

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Time of each row. Raises ValueError where the pool has no times."""
        return _known(self.pool.times)[self.rows]

    @property
    def labels(self) -> list[str]:
        """Label of each row."""
        return [self.pool.labels[label] for label in self.label_ids]

    @property
    def label_counts(self) -> dict[str, int]:
        """Count the rows per label, the most frequent first.

        Labels that have no row are left out.
        """
        counts = np.bincount(self.label_ids, minlength=len(self.pool.labels))
        total: Counter[str] = Counter()
        for rows, labels in zip(counts.tolist(), self.pool.label_sets(), strict=True):
            total.update(dict.fromkeys(labels, rows))
        return {label: rows for label, rows in sorted(total.items(), key=lambda one: (-one[1], one[0])) if rows}

    def label_pairs(self) -> tuple[Ints, Ints]:
        """List (row, label) for every label of every row, each int64 [pairs].

        Labels are numbered in sorted order.
        """
        sets = self.pool.label_sets()
        numbers = {label: number for number, label in enumerate(sorted({label for one in sets for label in one}))}
        sizes = np.array([len(one) for one in sets], dtype=np.int64)
        flat = np.array([numbers[label] for one in sets for label in one], dtype=np.int64)
        starts, ids = np.cumsum(sizes) - sizes, self.label_ids
        rows = np.repeat(np.arange(len(self), dtype=np.int64), sizes[ids])
        within = np.arange(len(rows)) - np.repeat(np.cumsum(sizes[ids]) - sizes[ids], sizes[ids])
        return rows, flat[np.repeat(starts[ids], sizes[ids]) + within]

    def whole_keys(self) -> list[bytes]:
        """Return each row's key, a hash of its texts and its label."""
        return as_bytes(self.pool.keys[self.rows])

    def row_keys(self) -> list[bytes]:
        """Return each row's row_key, which a bundle's filters store."""
        return as_bytes(self.pool.text_keys[self.rows])

    def labelled_keys(self) -> list[bytes]:
        """Return each row's labelled_key."""
        return labelled_keys(self.pool, self.rows)


def _known(column: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if column is None:
        raise ValueError("the pool was read without the column to split by")
    return column


def as_bytes(keys: Keys) -> list[bytes]:
    """Convert keys to bytes, as the filters expect them."""
    joined = keys.astype(">u8").tobytes()
    return [joined[start : start + KEY_BYTES] for start in range(0, len(joined), KEY_BYTES)]


def labelled_keys(pool: Pool, rows: Ints) -> list[bytes]:
    """Compute the labelled_key of these rows."""
    labels = pool.label_ids[rows]
    return [
        labelled_key(key, pool.labels[label]) for key, label in zip(as_bytes(pool.text_keys[rows]), labels, strict=True)
    ]
