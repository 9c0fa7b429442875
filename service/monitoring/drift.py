"""Drift of the newest inputs from the test rows: a population stability index for each feature."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bentune.bundle.baseline import Baseline, Binned

# Inputs per computation of the index, which costs some microseconds.
STEP = 50

BinCounts = npt.NDArray[np.int64]


def stability_index(counts: BinCounts, expected: BinCounts) -> npt.NDArray[np.float64]:
    """Return the population stability index of `counts` against `expected`.

    The index is [...], for counts [..., bins] and expected counts [bins] or [..., bins]. It is the symmetric divergence
    sum((p - q) ln(p / q)) of the shares (Jeffreys 1946). Half an observation is added to each bin, so that an empty one
    counts and is not infinite (Krichevsky and Trofimov 1981).
    """
    p, q = _shares(counts), _shares(expected)
    index: npt.NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index


def _shares(counts: BinCounts) -> npt.NDArray[np.float64]:
    more = counts + 0.5
    shares: npt.NDArray[np.float64] = more / more.sum(axis=-1, keepdims=True)
    return shares


class Drift:
    """Sliding window over one process's inputs. The cost of an answer does not depend on the window's size."""

    def __init__(self, baseline: Baseline, show: Callable[[str, float], None]) -> None:
        """Start with no input; `show` gets each feature's index once the window is full."""
        self._window = baseline.window
        self._edges = {name: one.edges if isinstance(one, Binned) else None for name, one in baseline.features.items()}
        self._expected = {name: np.array(one.counts) for name, one in baseline.features.items()}
        self._counts = [[0] * len(one.counts) for one in baseline.features.values()]
        self._newest: deque[list[int]] = deque()
        self._show = show
        self._unseen = 0

    def answered(self, features: Mapping[str, float]) -> None:
        """Count one answer by the value of each feature.

        A value is a number to be binned, or the index of a bin.
        """
        new = [
            int(features[name]) if edges is None else bisect_right(edges, features[name])
            for name, edges in self._edges.items()
        ]
        if len(self._newest) == self._window:
            for counts, bin_ in zip(self._counts, self._newest.popleft(), strict=True):
                counts[bin_] -= 1
        for counts, bin_ in zip(self._counts, new, strict=True):
            counts[bin_] += 1
        self._newest.append(new)
        self._unseen += 1
        if self._unseen >= STEP and len(self._newest) == self._window:
            self._unseen = 0
            for (name, expected), counts in zip(self._expected.items(), self._counts, strict=True):
                self._show(name, float(stability_index(np.array(counts), expected)))
