"""Reads the rows that the data stage wrote, and tokenizes them for torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from transformers import BatchEncoding, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts, or pairs where `pairs` is not None, with their labels, int64 [rows]."""

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
    labels = table["label"].to_numpy().astype(np.int64)
    return Rows(table["text"].to_pylist(), pairs if pairs and pairs[0] is not None else None, labels)
