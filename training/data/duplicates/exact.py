"""Exact duplicates: rows with the same text; one is kept, by a rule that depends on the rows alone."""

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Ints, Mask
from bentune.bundle.seen_rows import RowFilter
from training.data.reading.pool import Pool, labelled_keys


def same_texts(pool: Pool, known: RowFilter | None = None) -> Ints:
    """Choose for each row the row that is kept for its text, int64 [rows].

    Texts are the same when their row_key is. A kept row has its own number. The preferred row of a text is, in this
    order: one of the training source before one of a hub's test split; for a text with several labels, the row whose
    labelled_key is in `known`; the oldest, where rows have times; the row with the smallest key. So the choice does not
    depend on the order of the rows.
    """
    rank = np.empty(len(pool), dtype=np.int64)
    rank[pool.order()] = np.arange(len(pool))
    preferred = _contradicted(pool, rank)
    if known is not None:
        rows = np.flatnonzero(preferred)
        preferred[rows] = known.has(labelled_keys(pool, rows)) if len(rows) else False
    times = () if pool.times is None else (pool.times,)
    order = np.lexsort((rank, *times, ~preferred, pool.sources, pool.text_keys[:, 1], pool.text_keys[:, 0]))
    starts = np.flatnonzero(_new(pool.text_keys[order]))
    kept = np.empty(len(pool), dtype=np.int64)
    kept[order] = np.repeat(order[starts], np.diff(starts, append=len(pool)))
    return kept


def _contradicted(pool: Pool, rank: Ints) -> Mask:
    """Mark the rows whose text has more than one label."""
    order = np.lexsort((rank, pool.text_keys[:, 1], pool.text_keys[:, 0]))
    starts = np.flatnonzero(_new(pool.text_keys[order]))
    labels = pool.label_ids[order]
    mixed = np.zeros(len(pool), dtype=np.bool_)
    if len(order):
        differ = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
        mixed[order] = np.repeat(differ, np.diff(starts, append=len(pool)))
    return mixed


def _new(keys: npt.NDArray[np.uint64]) -> Mask:
    """Mark the sorted keys [rows, 2] that differ from their predecessor."""
    return np.concatenate([np.ones(min(1, len(keys)), dtype=np.bool_), (keys[1:] != keys[:-1]).any(axis=1)])
