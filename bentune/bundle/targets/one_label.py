"""Target of a classifier whose rows have one label each: softmax, and the likeliest label."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bentune.bundle.arrays import Float32s
from bentune.bundle.targets.target import Answers, Observation, Prediction, Replayed, Scores, Target

LEAST = 1e-30
"""Lower bound of a probability: its logarithm stays finite in float32. The log loss of a row is bounded anyway."""
TOLERANCE = 1e-3
SHOWN, SHOWN_CHARACTERS = 10, 40
"""Most labels in a message, and most characters of one."""


def label_text(value: object) -> str:
    """Return a label as text; 5, 5.0 and "5" are one label."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the softmax over the last axis; same shape and dtype, no overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


class OneLabel(Target):
    """One label per row: scores are probabilities that sum to 1, an answer is a label's number, int64 [rows]."""

    kind: ClassVar = "one_label"
    gives: ClassVar = "one label"
    bounds: ClassVar = (0.0, 1.0 + TOLERANCE)
    features: ClassVar = ("label", "confidence")

    gold_type: ClassVar = np.int64

    labels: list[str] = Field(min_length=2)

    def wire(self) -> dict[str, Any]:
        """Return only its labels, the format of older bundles."""
        return {"labels": self.labels}

    def parse(self, value: object, *, separator: str | None, renamed: Mapping[str, str]) -> Any:
        """Return the number of the row's label."""
        del separator
        if value is None or isinstance(value, bool | list | dict):
            raise ValueError("has no label")
        return self._number(label_text(value), renamed)

    def _number(self, name: str, renamed: Mapping[str, str]) -> int:
        """Return the number of a label, by its name or its former name."""
        name = name if name in self.index else renamed.get(name, name)
        if name not in self.index:
            known = ", ".join(self.labels[:SHOWN])
            shown = repr(name) if len(name) <= SHOWN_CHARACTERS else f"a label of {len(name)} characters"
            raise ValueError(f"has {shown}, which is none of the models' labels, which are {known}")
        return self.index[name]

    def scores(self, logits: Scores) -> Float32s:
        """Return probabilities."""
        return softmax(logits)

    def logits(self, scores: Scores) -> Float32s:
        """Return log-probabilities, an inverse of the softmax."""
        return np.log(np.maximum(scores, LEAST)).astype(np.float32)

    def certain(self, gold: Answers) -> Float32s:
        """Return 1 for the row's label and 0 for every other one."""
        return np.eye(len(self.labels), dtype=np.float32)[gold]

    def answers(self, logits: Scores) -> Answers:
        """Return the best label of each row, int64 [rows]."""
        return np.asarray(logits.argmax(axis=-1))

    def decided(self, scores: Scores) -> Answers:
        """Return the likeliest label of each row, int64 [rows]."""
        return np.asarray(scores.argmax(axis=-1))

    def differ(self, one: Answers, other: Answers) -> npt.NDArray[np.bool_]:
        """Return true where the labels differ."""
        return np.asarray(one != other, dtype=np.bool_)

    def sureness(self, scores: Scores) -> npt.NDArray[np.float64]:
        """Return the probability of the likeliest label."""
        return np.asarray(scores.max(axis=-1), dtype=np.float64)

    def turns(self, logits: Scores) -> npt.NDArray[np.int64]:
        """Return the best label of each row."""
        return np.asarray(logits.argmax(axis=-1), dtype=np.int64)

    def best(self, logits: Scores) -> str:
        """Return the best label."""
        return self.labels[int(logits.argmax())]

    def spell(self, answer: Any) -> str:
        """Return the label's name."""
        return self.labels[int(answer)]

    def ranked(self, scores: Float32s, top_k: int | None = None, *, by: Float32s) -> list[Prediction]:
        """Return the labels with their scores, ties in label order.

        They are ranked by outputs, because the scores of two labels may both be 1 in float32.
        """
        order = np.argsort(-by, kind="stable")[:top_k]
        return [{"label": self.labels[index], "score": float(scores[index])} for index in order]

    def observe(self, scores: Float32s) -> Observation:
        """Return the likeliest label and its probability."""
        best = int(scores.argmax())
        confidence = float(scores[best])
        return Observation([self.labels[best]], confidence, {"label": best, "confidence": confidence})

    def replayed(self, logged: Mapping[str, float], scores: Mapping[str, float]) -> Replayed:
        """Compare the likeliest labels.

        `moved` is the change of the logged label's probability.
        """
        before, after = (max(one, key=one.__getitem__) for one in (logged, scores))
        moved = abs(scores.get(before, 0.0) - logged[before])
        weight = min(logged[before], scores[after])
        return Replayed(before, logged[before], after, scores[after], moved, before != after, weight)

    def plausible(self, scores: npt.NDArray[np.float64]) -> bool:
        """Return whether each row has a probability for each label, and they sum to 1."""
        return super().plausible(scores) and bool((np.abs(scores.sum(axis=1) - 1) < TOLERANCE).all())
