"""Iterative stratification: a draw of multi-label rows in which each label has its share.

Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", algorithm 1, with two subsets: the
label with the fewest remaining rows goes first, and each of its rows goes to the subset that needs that label most.
Here rows without a label are stratified too, as the rows of one more label.
"""

import numpy as np

from bentune.bundle.arrays import Ints, Mask


def stratified(rows: Ints, labels: Ints, count: int, share: float, seed: int) -> Mask:
    """Draw about a `share` of each label's rows, bool [count].

    Row `rows[n]` has the label `labels[n]`, both int64. The same seed draws the same rows.
    """
    without = np.setdiff1d(np.arange(count), rows)
    rows = np.append(rows, without)
    labels = np.append(labels, np.full(len(without), labels.max(initial=-1) + 1))
    place = np.random.default_rng(seed).permutation(count)  # the order among a label's rows is random
    order = np.lexsort((place[rows], labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    rows_of = dict(zip(labels[order][starts].tolist(), np.split(rows[order], starts[1:]), strict=True))
    by_row = np.argsort(rows, kind="stable")
    edges = np.searchsorted(rows[by_row], np.arange(count + 1)).tolist()
    of_row = labels[by_row].tolist()
    left = {label: len(part) for label, part in rows_of.items()}
    # Rows that each subset still needs: of each label, and in all.
    wanted = [{label: part * number for label, number in left.items()} for part in (1 - share, share)]
    in_all = [(1 - share) * count, share * count]
    chosen, given = np.zeros((2, count), dtype=np.bool_)
    while left:
        rarest = min(left, key=lambda label: (left[label], label))
        for row in rows_of[rarest].tolist():
            if given[row]:
                continue
            side = int((wanted[1][rarest], in_all[1]) > (wanted[0][rarest], in_all[0]))
            given[row], chosen[row] = True, bool(side)
            in_all[side] -= 1
            for label in of_row[edges[row] : edges[row + 1]]:
                wanted[side][label] -= 1
                if label in left:
                    left[label] -= 1
        del left[rarest]
    return chosen
