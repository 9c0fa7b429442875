"""Target of a regression: one number per row."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bentune.bundle.arrays import Float32s
from bentune.bundle.targets.target import Answers, Observation, Prediction, Replayed, Scores, Target

FLIP = 0.1
"""Distance beyond which two answers differ, in standard deviations of the training rows' numbers."""
STEPS = 2


def number_in(value: object) -> float:
    """Return the number that a column holds.

    Raises ValueError, whose message follows the name of the column.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"has no number ({type(value).__name__})")
    try:
        number = float(value)
    except ValueError:
        raise ValueError("has a text that is no number; write it as 4.5") from None
    if not math.isfinite(number):
        raise ValueError(f"has no number ({number})")
    return number


class Number(Target):
    """One number per row: outputs are in standard deviations from the training rows' mean, scores in the rows' unit.

    `center` and `scale` are the mean and the standard deviation of the training rows, in that unit. An answer is float
    [rows].
    """

    kind: ClassVar = "number"
    gives: ClassVar = "a number"
    bounds: ClassVar = (-math.inf, math.inf)
    features: ClassVar = ("value",)
    gold_type: ClassVar = np.float64

    labels: list[str] = Field(min_length=1, max_length=1)
    center: float
    scale: float = Field(gt=0)

    def parse(self, value: object, *, separator: str | None, renamed: Mapping[str, str]) -> Any:
        """Return the row's number."""
        del separator, renamed
        return number_in(value)

    def scores(self, logits: Scores) -> Float32s:
        """Return numbers in the rows' unit."""
        return np.asarray(logits * self.scale + self.center, dtype=logits.dtype)

    def logits(self, scores: Scores) -> Float32s:
        """Return standard deviations from the mean."""
        return ((np.asarray(scores, dtype=np.float64) - self.center) / self.scale).astype(np.float32)

    def certain(self, gold: Answers) -> Float32s:
        """Return the number."""
        return np.asarray(gold, dtype=np.float32)[:, None]

    def answers(self, logits: Scores) -> Answers:
        """Return the numbers, float [rows]."""
        return self.scores(logits)[..., 0]

    def decided(self, scores: Scores) -> Answers:
        """Return the numbers, float [rows]."""
        return np.asarray(scores)[..., 0]

    def differ(self, one: Answers, other: Answers) -> npt.NDArray[np.bool_]:
        """Return true where two numbers are more than FLIP standard deviations apart."""
        # In this form a NaN differs too.
        return np.asarray(~(np.abs(one - other) <= FLIP * self.scale), dtype=np.bool_)

    def sureness(self, scores: Scores) -> npt.NDArray[np.float64] | None:
        """Return None: a number has no probability."""
        del scores
        return None

    def turns(self, logits: Scores) -> npt.NDArray[np.int64]:
        """Return the whole standard deviations of each number from the mean.

        They are clipped to 2 and shifted, so the result is from 0 to 4, with 2 for the mean.
        """
        return np.asarray(np.clip(np.round(logits[..., 0]), -STEPS, STEPS) + STEPS, dtype=np.int64)

    def best(self, logits: Scores) -> str:
        """Return the number as text."""
        return self.spell(self.answers(logits))

    def spell(self, answer: Any) -> str:
        """Return the number with four significant digits."""
        return f"{float(answer):.4g}"

    def ranked(self, scores: Float32s, top_k: int | None = None, *, by: Float32s) -> list[Prediction]:
        """Return the number under its name."""
        del top_k, by
        return [{"label": self.labels[0], "score": float(scores[0])}]

    def observe(self, scores: Float32s) -> Observation:
        """Return the number, for drift."""
        return Observation(self.labels, None, {"value": float(scores[0])})

    def replayed(self, logged: Mapping[str, float], scores: Mapping[str, float]) -> Replayed:
        """Compare the two numbers; the weight is their distance."""
        name = self.labels[0]
        before, after = logged.get(name, math.nan), scores.get(name, math.nan)
        moved = abs(after - before) / self.scale
        return Replayed(name, before, name, after, moved, not moved <= FLIP, moved)

    def distance(self, one: Scores, other: Scores) -> float:
        """Return the largest change in standard deviations."""
        return super().distance(one, other) / self.scale

    @property
    def score_words(self) -> str:
        """Requirement of `read` on an answer, in words."""
        return f"a finite number for {self.labels[0]!r}"

    def plausible(self, scores: npt.NDArray[np.float64]) -> bool:
        """Return whether every row has a finite number."""
        return bool(np.isfinite(scores).all())
