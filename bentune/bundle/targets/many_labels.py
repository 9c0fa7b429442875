"""Target of a multi-label classifier: a sigmoid for each label, and a threshold."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Float32s
from bentune.bundle.targets.label_lists import labels_of
from bentune.bundle.targets.one_label import LEAST, OneLabel
from bentune.bundle.targets.target import NO_LABEL, Answers, Observation, Replayed, Scores

THRESHOLD = 0.5


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sigmoid of each; same shape and dtype, no overflow."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, small) / (1 + small))


class ManyLabels(OneLabel):
    """Any number of labels per row: each has its own probability, and the row gets those above THRESHOLD.

    An answer is bool [rows, labels].
    """

    kind: ClassVar = "many_labels"
    gives: ClassVar = "any number of labels"

    def wire(self) -> dict[str, Any]:
        """Return its labels and `multi_label`, the format of older bundles."""
        return {"labels": self.labels, "multi_label": True}

    @property
    def counted(self) -> list[str]:
        """The labels, and NO_LABEL for the rows that get none."""
        return [*self.labels, NO_LABEL]

    def parse(self, value: object, *, separator: str | None, renamed: Mapping[str, str]) -> Any:
        """Return a 1 for each label of the row, int64 [labels]."""
        marks = np.zeros(len(self.labels), dtype=np.int64)
        marks[[self._number(name, renamed) for name in labels_of(value, separator)]] = 1
        return marks

    def scores(self, logits: Scores) -> Float32s:
        """Return an independent probability for each label."""
        return sigmoid(logits)

    def logits(self, scores: Scores) -> Float32s:
        """Return log-odds, the inverse of the sigmoid."""
        bounded = np.clip(scores, LEAST, 1 - np.finfo(np.float64).eps)
        return (np.log(bounded) - np.log1p(-bounded)).astype(np.float32)

    def certain(self, gold: Answers) -> Float32s:
        """Return 1 for each label of the row and 0 for every other one."""
        return np.asarray(gold, dtype=np.float32)

    def answers(self, logits: Scores) -> Answers:
        """Return the labels of each row, bool [rows, labels]."""
        return np.asarray(logits > 0)

    def decided(self, scores: Scores) -> Answers:
        """Return the labels of each row, bool [rows, labels]."""
        return np.asarray(scores > THRESHOLD)

    def differ(self, one: Answers, other: Answers) -> npt.NDArray[np.bool_]:
        """Return true where any label differs."""
        return np.asarray((one != other).any(axis=-1), dtype=np.bool_)

    def sureness(self, scores: Scores) -> npt.NDArray[np.float64]:
        """Return the probability of the least sure decision of each row."""
        return np.asarray(np.maximum(scores, 1 - scores).min(axis=-1), dtype=np.float64)

    def spell(self, answer: Any) -> str:
        """Return the names of the marked labels; NO_LABEL where there is none."""
        return ", ".join(self.labels[number] for number in np.flatnonzero(answer).tolist()) or NO_LABEL

    def observe(self, scores: Float32s) -> Observation:
        """Return the labels above the threshold.

        The histogram counts only the likeliest of them.
        """
        best = int(scores.argmax())
        confidence = float(scores[best])
        given = [self.labels[index] for index in np.flatnonzero(scores > THRESHOLD).tolist()]
        bin_ = best if given else len(self.labels)
        return Observation(given or [NO_LABEL], confidence, {"label": bin_, "confidence": confidence})

    def replayed(self, logged: Mapping[str, float], scores: Mapping[str, float]) -> Replayed:
        """Compare all labels above the threshold.

        `moved` is the largest change of a probability.
        """
        before, after = (_above(one) for one in (logged, scores))
        sure = [min(max(score, 1 - score) for score in one.values()) for one in (logged, scores)]
        names = logged.keys() | scores.keys()
        moved = max(abs(scores.get(name, 0.0) - logged.get(name, 0.0)) for name in names)
        return Replayed(before, sure[0], after, sure[1], moved, before != after, min(sure))

    def plausible(self, scores: npt.NDArray[np.float64]) -> bool:
        """Return whether each row has a probability for each label.

        Labels do not exclude each other, so the probabilities may have any sum.
        """
        low, high = self.bounds
        return bool((scores >= low).all() and (scores <= high).all())


def _above(scores: Mapping[str, float]) -> str:
    return ", ".join(sorted(name for name, score in scores.items() if score > THRESHOLD)) or NO_LABEL
