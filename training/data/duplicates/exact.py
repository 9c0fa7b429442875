"""Rows with the same text: one of them is kept, and which one depends on nothing but the rows."""

import numpy as np
import numpy.typing as npt

from bentune.bundle.seen_rows import RowFilter
from training.data.reading.pool import Indices, Mask, Pool, labelled_keys


def same_texts(pool: Pool, known: RowFilter | None = None) -> Indices:
    """For each row the row that is kept for its text, by row_key: itself where it is kept. int64 [rows].

    Kept is a row of the training source before one of the hub's held-out split; of a text that came with several labels
    the one whose labelled_key is `known`, if one is; where rows have times the oldest; and then that of the smallest
    key, so that it does not depend on the rows' order.
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


def _contradicted(pool: Pool, rank: Indices) -> Mask:
    """Rows whose text came with more than one label."""
    order = np.lexsort((rank, pool.text_keys[:, 1], pool.text_keys[:, 0]))
    starts = np.flatnonzero(_new(pool.text_keys[order]))
    labels = pool.label_ids[order]
    mixed = np.zeros(len(pool), dtype=np.bool_)
    if len(order):
        differ = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
        mixed[order] = np.repeat(differ, np.diff(starts, append=len(pool)))
    return mixed


def _new(keys: npt.NDArray[np.uint64]) -> Mask:
    """Which of the sorted keys [rows, 2] differ from the one before."""
    return np.concatenate([np.ones(min(1, len(keys)), dtype=np.bool_), (keys[1:] != keys[:-1]).any(axis=1)])
