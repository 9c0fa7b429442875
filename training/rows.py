"""Reads the rows that the data stage wrote, and tokenizes them for torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import BatchEncoding, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts, or pairs where `pairs` is not None, with their labels, int64 [rows].

    Where rows have any number of labels these are int64 [rows, labels], 1 for each that a row has.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: npt.NDArray[np.int64]) -> "Rows":
        """The rows of these numbers."""
        pairs = [self.pairs[row] for row in chosen] if self.pairs is not None else None
        return Rows([self.texts[row] for row in chosen], pairs, self.labels[chosen])

    def encode(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> BatchEncoding:
        """Token ids without padding, cut to `max_tokens`."""
        encoded: BatchEncoding = tokenizer(self.texts, self.pairs, truncation=True, max_length=max_tokens)
        return encoded


def read_rows(file: Path) -> Rows:
    """Read one split."""
    table = pq.read_table(file)
    pairs = table["text_pair"].to_pylist()
    return Rows(table["text"].to_pylist(), pairs if pairs and pairs[0] is not None else None, label_column(table))


def label_column(table: pa.Table) -> npt.NDArray[np.int64]:
    """The labels as `Rows` has them."""
    column = table["label"]
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(), dtype=np.int64)
    marks = column.combine_chunks().flatten().to_numpy().astype(np.int64)
    return np.asarray(marks.reshape(-1, column.type.list_size))
