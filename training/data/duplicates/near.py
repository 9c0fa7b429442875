"""Near duplicates: MinHash sketches (Broder 1997) of rows, compared where a band of them agrees.

The hash functions are datasketch's, but not its index, which keeps Python objects for each row and band: gigabytes for
a million rows. Here a band is a sorted column of numbers. A sketch keeps the low byte of each minimum (Li and König
2010), about two hundred bytes a row.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from bentune.bundle.arrays import Ints, Mask
from training.data.reading.pool import Pool

PERMUTATIONS = 128
SEED = 1
SHINGLE_WORDS = 3
RECALL = 0.95
"""Least probability that a band agrees for two texts whose similarity is the threshold."""
LEADERS = 16
"""Number of rows of a bucket that the bucket's other rows are compared with."""
ROUNDS = 20
COMPARED_AT_ONCE = 50_000
NO_ROW = -1
# In scripts without spaces between words each character counts as a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
ASCII_WORDS = bytes(code if chr(code).isalnum() or chr(code) == "_" else 32 for code in range(128)) + b" " * 128
Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Sketches:
    """Sketches of `rows` of a pool, in order of precedence.

    `low` are the low bytes of the minima, uint8 [rows, texts of a row, PERMUTATIONS]. `bands`, uint32 [bands, rows],
    are equal where the minima of a band are equal. A row in `wordless`, bool [rows], is similar to no other row.
    """

    rows: Ints
    low: Bytes
    bands: Hashes
    wordless: Mask

    def similarity(self, one: Ints, other: Ints) -> npt.NDArray[np.float32]:
        """Estimate the Jaccard index of the shingles of rows at these places.

        For rows with a text pair, the result is the lower of the two indices.
        """
        found = [np.empty(0, dtype=np.float32)]
        for start in range(0, len(one), COMPARED_AT_ONCE):
            piece = slice(start, start + COMPARED_AT_ONCE)
            same = (self.low[one[piece]] == self.low[other[piece]]).mean(axis=2, dtype=np.float32).min(axis=1)
            # Corrects for low bytes that are equal by chance.
            found.append(np.clip((same * 256 - 1) / 255, 0, 1))
        return np.concatenate(found)


@dataclass(frozen=True, slots=True)
class Near:
    """Near duplicates in a pool: for each row the similar row that is kept in its place, or NO_ROW.

    `contradicts` holds for each row a similar row with another label, or NO_ROW; both rows are kept. `similarity` and
    `contradicts_similarity` are the similarities to these rows.
    """

    kept: Ints
    similarity: npt.NDArray[np.float32]
    contradicts: Ints
    contradicts_similarity: npt.NDArray[np.float32]

    @classmethod
    def none(cls, pool: Pool) -> "Near":
        """Return a result without near duplicates."""
        nobody, zeros = np.full(len(pool), NO_ROW, dtype=np.int64), np.zeros(len(pool), dtype=np.float32)
        return cls(nobody, zeros, nobody.copy(), zeros.copy())


def sketch(pool: Pool, rows: Ints, threshold: float, advance: Callable[[int], None]) -> Sketches:
    """Read the texts of these rows, given in order of precedence, and sketch them."""
    banding = _banding(threshold)
    place = np.full(len(pool), NO_ROW, dtype=np.int64)
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
        # Rows that are similar in both texts are similar in the minima over both.
        bands[:, here] = _bands(np.minimum.reduce(hashes), *banding)
        wordless[here] = np.any(empty, axis=0)
        advance(len(numbers))
    if low is None:
        low = np.empty((0, 1, PERMUTATIONS), dtype=np.uint8)
    return Sketches(rows, low, bands, wordless)


def find_near(pool: Pool, sketches: Sketches, threshold: float, locked: Mask) -> Near:
    """Keep one of several similar rows of the same label, by precedence.

    In order of precedence, each row is left out if it is similar to a kept row. Rows in `locked`, bool [rows of the
    pool], are always kept.
    """
    rows = sketches.rows
    near = Near.none(pool)
    labels, locked_here = pool.label_ids[rows], locked[rows]
    # Numbers are places in `rows`: the smaller one takes precedence.
    kept = locked_here | sketches.wordless
    left_out = np.zeros(len(rows), dtype=np.bool_)
    against, alikeness = np.full(len(rows), len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.float32)
    for round_ in range(ROUNDS):
        first = np.full(len(rows), len(rows), dtype=np.int64)
        best = np.zeros(len(rows), dtype=np.float32)
        for leaders, others in _candidates(sketches, ~left_out):
            # Only the first round searches for contradictions; later rounds settle the undecided rows.
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


def _alike(sketches: Sketches, one: Ints, other: Ints, threshold: float) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
    similarity = sketches.similarity(one, other)
    alike = similarity >= threshold
    return one[alike], other[alike], similarity[alike]


def _note(
    first: Ints, best: npt.NDArray[np.float32], one: Ints, other: Ints, similarity: npt.NDArray[np.float32]
) -> None:
    """Record for each of `other` the similar row of highest precedence."""
    better = one < first[other]
    one, other, similarity = one[better], other[better], similarity[better]
    first[other], best[other] = one, similarity


def _candidates(sketches: Sketches, alive: Mask) -> Iterator[tuple[Ints, Ints]]:
    """Yield places of rows that agree in a band, precedence first.

    The second array has no place twice.
    """
    usable = np.flatnonzero(alive & ~sketches.wordless)
    for band in sketches.bands:
        # Stable, so that a bucket's rows stay in order of precedence.
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
    """Choose the number and the size of the bands.

    The size is the largest that finds a share RECALL of the pairs at the threshold.
    """
    return max(
        (
            (PERMUTATIONS // size, size)
            for size in range(1, PERMUTATIONS + 1)
            if 1 - (1 - threshold**size) ** (PERMUTATIONS // size) >= RECALL
        ),
        key=lambda banding: banding[1],
    )


def _bands(minima: Hashes, bands: int, size: int) -> Hashes:
    """Hash minima [rows, PERMUTATIONS] by band to uint32 [bands, rows]."""
    weights = np.random.default_rng(SEED).integers(0, 2**63, size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    cut = minima[:, : bands * size].reshape(len(minima), bands, size).astype(np.uint64)
    sums: npt.NDArray[np.uint64] = (cut * weights).sum(axis=2, dtype=np.uint64)
    return (sums >> np.uint64(32)).astype(np.uint32).T


def _minima(texts: Sequence[str], salt: int) -> tuple[Hashes, Mask]:
    """Compute the minimum of each hash function over each text's shingles.

    The minima are uint32 [texts, PERMUTATIONS]. The second result marks texts without a word. A text with fewer words
    than a shingle is one shingle.
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
    """Split a text into words without case and punctuation."""
    folded = text.casefold()
    if folded.isascii():
        return folded.encode().translate(ASCII_WORDS).split()
    return " ".join(WORD.findall(folded)).encode().split()


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix bits by the finalizer of SplitMix64 (Steele et al. 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
