"""Draws of a test or validation set: a share of each label, whole groups, or the newest rows."""

import numpy as np
import numpy.typing as npt
import scipy.sparse

from bentune.bundle.errors import InputError
from training.data.reading.pool import PoolRows
from training.recipe.data import SplitSettings


def hold_out(part: PoolRows, share: float, split: SplitSettings, seed: int, where: str) -> tuple[PoolRows, PoolRows]:
    """Split off a share of the rows; return the remaining rows and the share.

    Raises InputError when that is impossible; `where` begins the message.
    """
    if split.group is not None:
        chosen = _groups(part, share, split.group, seed, where)
    elif split.time is not None:
        chosen = _newest_of_all(part, share, split.time, where)
    else:
        chosen = part.pool.target.draw(part, share, seed, where)
    return part.take(np.flatnonzero(~chosen)), part.take(np.flatnonzero(chosen))


def some_groups(part: PoolRows, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Draw whole groups with about `share` of each label's rows, bool [rows].

    In random order, each group is taken if it brings the labels' counts nearer to the share by chi-square distance,
    with equal weight for each label. StratifiedGroupKFold of scikit-learn supports shares of 1/n only.
    """
    groups, of_row = np.unique(part.groups, return_inverse=True)
    rows, labels = part.pool.target.strata(part)
    width = int(labels.max(initial=-1)) + 1
    counts = scipy.sparse.csr_array((np.ones(len(rows)), (of_row[rows], labels)), shape=(len(groups), width))
    counts.sum_duplicates()
    total = np.bincount(labels, minlength=width).astype(np.float64)
    missing, weights = total * share, 1 / np.maximum(total, 1)
    taken = np.zeros(len(groups), dtype=np.bool_)
    for group in np.random.default_rng(seed).permutation(len(groups)):
        piece = slice(counts.indptr[group], counts.indptr[group + 1])
        label, own = counts.indices[piece], counts.data[piece]
        if (own * (2 * missing[label] - own) * weights[label]).sum() > 0:
            taken[group] = True
            missing[label] -= own
    chosen: npt.NDArray[np.bool_] = taken[of_row]
    return chosen


def newest(part: PoolRows, share: float) -> npt.NDArray[np.bool_]:
    """Mark the newest `share` of the rows, bool [rows].

    Among rows of the same time, those with the larger keys are marked.
    """
    order = np.argsort(part.times, kind="stable")  # the part's rows are in the order of their keys
    chosen = np.zeros(len(part), dtype=np.bool_)
    chosen[order[len(part) - round(len(part) * share) :]] = True
    return chosen


def _groups(part: PoolRows, share: float, column: str, seed: int, where: str) -> npt.NDArray[np.bool_]:
    if len(np.unique(part.groups)) < 2:
        raise InputError(
            f"{where}: all {len(part)} rows have the same {column!r}, and each part of the split needs a group: "
            "split by another column, or leave data.split.group out"
        )
    chosen = some_groups(part, share, seed)
    _, of_row, rows = np.unique(part.groups, return_inverse=True, return_counts=True)
    if not chosen.any():  # every group is larger than twice the share
        chosen = of_row == np.argmin(rows)
    elif chosen.all():
        chosen = of_row != np.argmax(rows)
    return np.asarray(chosen, dtype=np.bool_)


def _newest_of_all(part: PoolRows, share: float, column: str, where: str) -> npt.NDArray[np.bool_]:
    if len(np.unique(part.times)) < 2:
        raise InputError(
            f"{where}: all {len(part)} rows have the same {column!r}, so none is newer than another: split by another "
            "column, or leave data.split.time out"
        )
    chosen = newest(part, share)
    if chosen.all() or not chosen.any():
        raise InputError(f"{where}: {len(part)} rows cannot be split at {share}: one side would be empty")
    return chosen
