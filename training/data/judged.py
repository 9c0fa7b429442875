"""Sample of rows whose labels are judged, and the tokenization of their texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from training.tasks.rows import label_column

MOST_CHARACTERS = 2_000
WITHOUT_BLANKS = 20
"""Mean characters a word above which the script is taken to have no spaces between words."""


@dataclass(frozen=True, slots=True)
class SampledRows:
    """Rows of one part of the split, in an order that does not depend on the file's."""

    texts: list[str]
    origins: list[str]
    labels: npt.NDArray[np.int64]


def read_sample(file: Path, most: int, seed: int) -> SampledRows:
    """Read the `most` rows whose texts have the smallest hashes under the seed.

    They are in the order of the hashes.
    """
    hashes: list[int] = []
    parquet = pq.ParquetFile(file)
    for batch in parquet.iter_batches(columns=["text"]):
        hashes += [_hash(text, seed) for text in batch["text"].to_pylist()]
    order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")[:most]
    wanted = np.zeros(len(hashes), dtype=bool)
    wanted[order] = True
    tables, first = [], 0
    for batch in parquet.iter_batches(columns=["text", "text_pair", "origin", "label"]):
        tables.append(pa.Table.from_batches([batch]).filter(pa.array(wanted[first : first + len(batch)])))
        first += len(batch)
    table = pa.concat_tables(tables).take(np.searchsorted(np.sort(order), order))
    pairs = table["text_pair"].to_pylist()
    texts = [
        text[:MOST_CHARACTERS] + (f"\n{pair[:MOST_CHARACTERS]}" if pair is not None else "")
        for text, pair in zip(table["text"].to_pylist(), pairs, strict=True)
    ]
    return SampledRows(texts, table["origin"].to_pylist(), label_column(table))


def _hash(text: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode()).digest())


def word_pieces(texts: Sequence[str]) -> dict[str, Any]:
    """Choose the options by which TF-IDF splits these texts into words or characters."""
    words = sum(len(text.split()) for text in texts)
    if sum(map(len, texts)) > WITHOUT_BLANKS * words:
        return {"analyzer": "char", "ngram_range": (1, 3)}
    return {"token_pattern": r"(?u)\b\w+\b"}
