"""Drift: how far the newest inputs are from the held-out rows, as a population stability index for each feature."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bentune.bundle.baseline import Baseline

# The index costs some microseconds: it is computed for every so many inputs, and in between nothing but counts change.
STEP = 50

Counts = npt.NDArray[np.int64]


def stability_index(counts: Counts, expected: Counts) -> npt.NDArray[np.float64]:
    """The population stability index of counts [..., bins] against `expected` [bins] or [..., bins]: [...].

    It is the symmetric divergence sum((p - q) ln(p / q)) of the shares (Jeffreys 1946). Half an observation is added to
    each bin, so that an empty one counts and is not infinite (Krichevsky and Trofimov 1981).
    """
    p, q = _shares(counts), _shares(expected)
    index: npt.NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=-1)
    return index


def _shares(counts: Counts) -> npt.NDArray[np.float64]:
    more = counts + 0.5
    shares: npt.NDArray[np.float64] = more / more.sum(axis=-1, keepdims=True)
    return shares


class Drift:
    """The newest inputs of one process. What an answer adds costs the same however large the window is."""

    def __init__(self, baseline: Baseline, show: Callable[[str, float], None]) -> None:
        """`show` is given each feature's index, the first time when the window is full: fewer inputs prove nothing."""
        self._window = baseline.window
        self._length_edges = baseline.token_length.edges
        self._confidence_edges = baseline.confidence.edges
        self._expected = {name: np.array(one.counts) for name, one in baseline.features.items()}
        self._counts = [[0] * len(one.counts) for one in baseline.features.values()]
        self._newest: deque[tuple[int, int, int]] = deque()
        self._show = show
        self._unseen = 0

    def answered(self, tokens: int, label: int, confidence: float) -> None:
        """An input of so many tokens got this label, by its number, with this probability."""
        lengths, labels, confidences = self._counts
        new = bisect_right(self._length_edges, tokens), label, bisect_right(self._confidence_edges, confidence)
        if len(self._newest) == self._window:
            old = self._newest.popleft()
            lengths[old[0]] -= 1
            labels[old[1]] -= 1
            confidences[old[2]] -= 1
        lengths[new[0]] += 1
        labels[new[1]] += 1
        confidences[new[2]] += 1
        self._newest.append(new)
        self._unseen += 1
        if self._unseen >= STEP and len(self._newest) == self._window:
            self._unseen = 0
            for (name, expected), counts in zip(self._expected.items(), self._counts, strict=True):
                self._show(name, float(stability_index(np.array(counts), expected)))
