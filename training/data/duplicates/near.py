"""Finds rows whose texts are nearly the same: MinHash sketches (Broder 1997), compared where a band of them agrees.

The hash functions are datasketch's. Its index keeps Python objects for each row and band, gigabytes for a million rows;
here bands are sorted columns of numbers, and a sketch keeps the low byte of each minimum (Li and König 2010): about two
hundred bytes a row.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from training.data.reading.pool import Indices, Mask, Pool

PERMUTATIONS = 128
SEED = 1
SHINGLE_WORDS = 3
RECALL = 0.95
"""Of two texts that are just as alike as the threshold, how often a band of them agrees."""
LEADERS = 16
"""With how many of a band's rows the others are compared; all of them where it has no more."""
ROUNDS = 20
COMPARED_AT_ONCE = 50_000
NOBODY = -1
# In scripts that put no blanks between words a character is a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
ASCII_WORDS = bytes(code if chr(code).isalnum() or chr(code) == "_" else 32 for code in range(128)) + b" " * 128
Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Sketches:
    """Of `rows` of a pool, the more important first: `low` uint8 [rows, texts of a row, PERMUTATIONS].

    `bands` uint32 [bands, rows] are equal where the minima of a band are; `wordless` rows are like no other.
    """

    rows: Indices
    low: Bytes
    bands: Hashes
    wordless: Mask

    def similarity(self, one: Indices, other: Indices) -> npt.NDArray[np.float32]:
        """Estimated Jaccard index of the shingles of rows in these places; of pairs that of the less similar texts."""
        found = [np.empty(0, dtype=np.float32)]
        for start in range(0, len(one), COMPARED_AT_ONCE):
            piece = slice(start, start + COMPARED_AT_ONCE)
            same = (self.low[one[piece]] == self.low[other[piece]]).mean(axis=2, dtype=np.float32).min(axis=1)
            # Two low bytes are also equal by chance.
            found.append(np.clip((same * 256 - 1) / 255, 0, 1))
        return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Near:
    """For each row of a pool the row that it is nearly the same as and that is kept instead, or NOBODY.

    `contradicts` is the same for rows of another label, of which both are kept. `similarity` and
    `contradicts_similarity` go with them.
    """

    kept: Indices
    similarity: npt.NDArray[np.float32]
    contradicts: Indices
    contradicts_similarity: npt.NDArray[np.float32]

    @classmethod
    def none(cls, pool: Pool) -> "Near":
        """Nothing is like anything."""
        nobody, zeros = np.full(len(pool), NOBODY, dtype=np.int64), np.zeros(len(pool), dtype=np.float32)
        return cls(nobody, zeros, nobody.copy(), zeros.copy())


def sketch(pool: Pool, rows: Indices, threshold: float, advance: Callable[[int], None]) -> Sketches:
    """Read the texts of these rows, which come the more important first, and sketch them."""
    banding = _banding(threshold)
    place = np.full(len(pool), NOBODY, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    low: Bytes | None = None
    bands = np.empty((banding[0], len(rows)), dtype=np.uint32)
    wordless = np.zeros(len(rows), dtype=np.bool_)
    for table, numbers in pool.tables(rows):
        columns = [table["text"].to_pylist()]
        if table["text_pair"].null_count == 0:
            columns.append(table["text_pair"].to_pylist())
        hashes, empty = zip(*(_minima(texts, salt) for salt, texts in enumerate(columns)), strict=True)
        here = place[numbers]
        if low is None:
            low = np.empty((len(rows), len(columns), PERMUTATIONS), dtype=np.uint8)
        low[here] = np.stack([minima.astype(np.uint8) for minima in hashes], axis=1)
        # The minima over the shingles of both texts: pairs that are alike in both are alike in these.
        bands[:, here] = _bands(np.minimum.reduce(hashes), *banding)
        wordless[here] = np.any(empty, axis=0)
        advance(len(numbers))
    if low is None:
        low = np.empty((0, 1, PERMUTATIONS), dtype=np.uint8)
    return Sketches(rows, low, bands, wordless)


def find_near(pool: Pool, sketches: Sketches, threshold: float, locked: Mask) -> Near:
    """Of rows with one label that are alike keep the more important.

    One after the other, each row is left out if one that is kept is like it. Rows that are `locked`, bool [rows of the
    pool], are kept in any case.
    """
    rows = sketches.rows
    near = Near.none(pool)
    labels, locked_here = pool.label_ids[rows], locked[rows]
    # In places of `rows`: who is more important is the smaller number.
    kept = locked_here | sketches.wordless
    left_out = np.zeros(len(rows), dtype=np.bool_)
    against, alikeness = np.full(len(rows), len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.float32)
    for round_ in range(ROUNDS):
        first = np.full(len(rows), len(rows), dtype=np.int64)
        best = np.zeros(len(rows), dtype=np.float32)
        for leaders, others in _candidates(sketches, ~left_out):
            # Contradictions are looked for once; later rounds decide about what a kept row may be like.
            asked = ~kept[others] & (labels[leaders] == labels[others]) if round_ else slice(None)
            one, other, similarity = _alike(sketches, leaders[asked], others[asked], threshold)
            same = labels[one] == labels[other]
            _note(first, best, one[same], other[same], similarity[same])
            _note(against, alikeness, one[~same], other[~same], similarity[~same])
        alone = first == len(rows)
        undecided = ~kept & ~left_out
        now_kept = undecided & alone
        kept |= now_kept
        out = undecided & ~alone
        out[out] = kept[first[out]]
        near.kept[rows[out]], near.similarity[rows[out]] = rows[first[out]], best[out]
        left_out |= out
        if not (undecided & ~now_kept & ~out).any():
            break
    told = np.flatnonzero(~left_out & (against < len(rows)))
    told = told[~left_out[against[told]]]
    near.contradicts[rows[told]], near.contradicts_similarity[rows[told]] = rows[against[told]], alikeness[told]
    return near


def _alike(
    sketches: Sketches, one: Indices, other: Indices, threshold: float
) -> tuple[Indices, Indices, npt.NDArray[np.float32]]:
    similarity = sketches.similarity(one, other)
    alike = similarity >= threshold
    return one[alike], other[alike], similarity[alike]


def _note(
    first: Indices, best: npt.NDArray[np.float32], one: Indices, other: Indices, similarity: npt.NDArray[np.float32]
) -> None:
    """Keep for each of `other` the most important row that is like it."""
    better = one < first[other]
    one, other, similarity = one[better], other[better], similarity[better]
    first[other], best[other] = one, similarity


def _candidates(sketches: Sketches, alive: Mask) -> Iterator[tuple[Indices, Indices]]:
    """Places of rows a band of which agrees, the more important first; no place is twice in the second array."""
    usable = np.flatnonzero(alive & ~sketches.wordless)
    for band in sketches.bands:
        # Stable, so that within a bucket the more important rows come first.
        order = usable[np.argsort(band[usable], kind="stable")]
        keys = band[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(new)
        start = np.repeat(starts, np.diff(starts, append=len(order)))
        for leader in range(LEADERS):
            behind = np.flatnonzero(np.arange(len(order)) - start > leader)
            if not len(behind):
                break
            yield order[start[behind] + leader], order[behind]


def _banding(threshold: float) -> tuple[int, int]:
    """How many bands of how many minima: the longest that find RECALL of the pairs as alike as the threshold."""
    return max(
        (
            (PERMUTATIONS // size, size)
            for size in range(1, PERMUTATIONS + 1)
            if 1 - (1 - threshold**size) ** (PERMUTATIONS // size) >= RECALL
        ),
        key=lambda banding: banding[1],
    )


def _bands(minima: Hashes, bands: int, size: int) -> Hashes:
    """uint32 [bands, rows] of minima [rows, PERMUTATIONS]."""
    weights = np.random.default_rng(SEED).integers(0, 2**63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    cut = minima[:, : bands * size].reshape(len(minima), bands, size).astype(np.uint64)
    sums: npt.NDArray[np.uint64] = (cut * weights).sum(axis=2, dtype=np.uint64)
    return (sums >> np.uint64(32)).astype(np.uint32).T


def _minima(texts: Sequence[str], salt: int) -> tuple[Hashes, Mask]:
    """The minimum of each hash function over the shingles of each text, uint32 [texts, PERMUTATIONS]; who has no word.

    A text of fewer words than a shingle is one shingle.
    """
    counts, hashed = [], []
    for text in texts:
        words = list(map(zlib.crc32, words_of(text)))
        counts.append(len(words))
        hashed += words + [0] * (SHINGLE_WORDS - len(words))
    lengths = np.maximum(np.array(counts), SHINGLE_WORDS)
    flat = np.array(hashed, dtype=np.uint64)
    ends = np.cumsum(lengths)
    shingles = np.full(len(flat) - SHINGLE_WORDS + 1, salt, dtype=np.uint64)
    for word in range(SHINGLE_WORDS):
        shingles = _mixed(shingles * np.uint64(0x9E3779B97F4A7C15) + flat[word : len(flat) - SHINGLE_WORDS + 1 + word])
    inside = np.ones(len(shingles), dtype=np.bool_)
    for back in range(1, SHINGLE_WORDS):
        inside[ends[:-1] - back] = False
    values = (shingles[inside] >> np.uint64(32)).astype(np.uint32)
    starts = np.concatenate([[0], np.cumsum(lengths - SHINGLE_WORDS + 1)[:-1]])
    factors, terms = MinHash(num_perm=PERMUTATIONS, seed=SEED).permutations
    minima = np.empty((len(texts), PERMUTATIONS), dtype=np.uint32)
    for number, (factor, term) in enumerate(zip(factors, terms, strict=True)):
        minima[:, number] = np.minimum.reduceat(values * factor + term, starts)
    return minima, np.array(counts) == 0


def words_of(text: str) -> list[bytes]:
    """Words as two texts share them: without case and punctuation."""
    folded = text.casefold()
    if folded.isascii():
        return folded.encode().translate(ASCII_WORDS).split()
    return " ".join(WORD.findall(folded)).encode().split()


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The end of SplitMix64 (Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
