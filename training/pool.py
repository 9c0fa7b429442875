"""The rows that the data stage has read: their texts wait on disk, in memory there are a key and a label of each."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.row_filter import RowFilter, labelled_key

POOL = pa.schema([("text", pa.string()), ("text_pair", pa.string()), ("origin", pa.string()), ("also", pa.string())])
Indices = npt.NDArray[np.int64]


@dataclass(slots=True)
class Pool:
    """Checked rows of one source: the texts on disk in `file`; in memory a 16-byte key and the label of each.

    `given_labels` are the labels before `data.labels` renamed them. `kept` has one row for each text, by its row_key;
    the others are duplicates. `contradicted` has for a text that came with several labels a row of each label.
    """

    file: Path
    keys: list[bytes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    given_labels: set[str] = field(default_factory=set)
    kept: dict[bytes, int] = field(default_factory=dict)
    contradicted: dict[bytes, dict[str, int]] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def keep(self, text: bytes, row: int) -> int:
        """Keep a row for its text, by row_key, unless another is kept for it; returns the one that was kept so far."""
        first = self.kept.setdefault(text, row)
        if first == row:
            return first
        if self.labels[first] != self.labels[row] or text in self.contradicted:
            by_label = self.contradicted.setdefault(text, {self.labels[first]: first})
            same = by_label.setdefault(self.labels[row], row)
            by_label[self.labels[row]] = min(same, row, key=self.keys.__getitem__)
        # Of two, the smaller key is kept and not the first, so that it does not depend on their order.
        self.kept[text] = min(first, row, key=self.keys.__getitem__)
        return first

    def prefer(self, labelled: RowFilter) -> None:
        """Of a text that came with several labels keep the one that the filter of labelled_key has, if it has one."""
        rows = [(text, row) for text, by_label in self.contradicted.items() for row in by_label.values()]
        known = labelled.has([labelled_key(text, self.labels[row]) for text, row in rows])
        for (text, row), there in zip(rows, known, strict=True):
            if there:
                self.kept[text] = row

    def rows(self) -> Indices:
        """The kept rows in the order of their keys, so that nothing depends on their order in the file."""
        return np.array(sorted(self.kept.values(), key=self.keys.__getitem__), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a pool that make up one split."""

    pool: Pool
    rows: Indices

    def take(self, chosen: Indices) -> "Part":
        """The rows in these places, in the order that they have here."""
        return Part(self.pool, self.rows[np.sort(chosen)])

    @property
    def labels(self) -> list[str]:
        """Label of each row."""
        return [self.pool.labels[row] for row in self.rows]

    def row_keys(self) -> list[bytes]:
        """The row_key of each row, by which a bundle's filters know it."""
        by_row = {row: key for key, row in self.pool.kept.items()}
        return [by_row[int(row)] for row in self.rows]

    def labelled_keys(self) -> list[bytes]:
        """The labelled_key of each row."""
        return [labelled_key(key, label) for key, label in zip(self.row_keys(), self.labels, strict=True)]
