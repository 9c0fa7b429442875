"""Rows of a model's training and test, as Bloom filters over their keys: eight bytes per row, no texts."""

import base64
import hashlib
import json
import math
from collections.abc import Collection, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Base64UrlBytes, Field, model_validator

from bentune.bundle.files import Frozen

FALSE_POSITIVE_RATE = 1e-6
MOST_HASHES = 64
MOST_ROWS = 10**12
MOST_BEFORE = 100
AT_ONCE = 50_000


def row_key(text: str, text_pair: str | None = None) -> bytes:
    """Return a key of 16 bytes for a row's texts.

    Case and spacing are ignored, so that a copy is the same row.
    """
    parts = [" ".join(part.casefold().split()) for part in (text, text_pair or "")]
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]


def labelled_key(key: bytes, label: str) -> bytes:
    """Return a key of 16 bytes for a row with its label; `key` is its row_key."""
    return hashlib.sha256(key + label.encode()).digest()[:16]


class RowFilter(Frozen):
    """Bloom filter of keys (Bloom 1970). It has no false negatives; false positives occur at `false_positive_rate`.

    The bits of a key are at mix(h1 + j * h2) modulo the number of bits, for each j below `hashes`. h1 and h2 are the
    key's halves; mix is the end of SplitMix64 (Steele et al. 2014). `bits` has eight per byte, the most significant
    first.
    """

    rows: int = Field(ge=0, le=MOST_ROWS)
    hashes: int = Field(ge=1, le=MOST_HASHES)
    bits: Base64UrlBytes

    @model_validator(mode="after")
    def _useful(self) -> Self:
        if not self.bits or self.false_positive_rate > 2 * FALSE_POSITIVE_RATE:
            raise ValueError(f"{len(self.bits)} bytes are too few for {self.rows} rows")
        return self

    @classmethod
    def of(cls, keys: Collection[bytes]) -> Self:
        """Build the filter of these keys, each 16 bytes."""
        size = max(64, math.ceil(-len(keys) * math.log(FALSE_POSITIVE_RATE) / math.log(2) ** 2))
        hashes = min(MOST_HASHES, max(1, round(size / max(len(keys), 1) * math.log(2))))
        size += -size % 8
        bits = np.zeros(size, dtype=np.uint8)
        # A key has twenty positions of eight bytes: all keys at once would take more memory than the rows.
        listed = list(keys)
        for start in range(0, len(listed), AT_ONCE):
            bits[_positions(listed[start : start + AT_ONCE], hashes, size)] = 1
        # As text, which is what Base64UrlBytes decodes.
        text = base64.urlsafe_b64encode(np.packbits(bits).tobytes())
        return cls.model_validate({"rows": len(keys), "hashes": hashes, "bits": text})

    @property
    def false_positive_rate(self) -> float:
        """Expected share of other keys that the filter reports as contained."""
        return float((1 - math.exp(-self.hashes * self.rows / (8 * len(self.bits)))) ** self.hashes)

    def has(self, keys: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Return bool [keys]: true for each key in the filter."""
        bits = np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8))
        return np.asarray(bits[_positions(keys, self.hashes, len(bits))].all(axis=1), dtype=np.bool_)


class SeenRows(Frozen):
    """Content of rows.json: the rows of training and validation (`trained`), and those of the test set (`held_out`).

    `labelled` has the labelled_key of all of them, so that a row with a new label is detected. `before` has the trained
    rows of earlier versions on whose weights these depend, and which the data no longer had.
    """

    trained: RowFilter
    held_out: RowFilter
    labelled: RowFilter
    before: list[RowFilter] = Field(default=[], max_length=MOST_BEFORE)

    def trained_on(self, keys: Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Return bool [keys]: true where the weights depend on the row of a row_key.

        These are the rows in `trained` and in `before`.
        """
        return np.asarray(np.any([one.has(keys) for one in (self.trained, *self.before)], axis=0), dtype=np.bool_)

    @property
    def false_positive_rate(self) -> float:
        """Upper bound of the share of new rows that `trained_on` reports as trained."""
        return sum(one.false_positive_rate for one in (self.trained, *self.before))


def _positions(keys: Sequence[bytes], hashes: int, size: int) -> npt.NDArray[np.uint64]:
    """Return the positions of each key's bits, uint64 [keys, hashes], below `size`."""
    halves = np.frombuffer(b"".join(keys), dtype="<u8").reshape(len(keys), 2)
    steps = np.arange(hashes, dtype=np.uint64)
    # Unmixed, two keys whose halves agree modulo `size` would share every bit, which is common with few rows.
    mixed = halves[:, :1] + steps * halves[:, 1:]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    positions: npt.NDArray[np.uint64] = (mixed ^ (mixed >> np.uint64(31))) % np.uint64(size)
    return positions
