"""The interface of a target, the meaning of a model's outputs from training to the served answer.

Outputs are what the graph returns as `logits`, float32 [rows, labels]. Scores are what a caller reads. An answer is
what the model decides for a row.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypedDict

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bentune.bundle.arrays import Float32s
from bentune.bundle.files import Frozen

Scores = npt.NDArray[np.floating]
Answers = npt.NDArray[Any]

NO_LABEL = "(none)"
"""Name under which a row without a label is counted, so no label may be called so."""


class Prediction(TypedDict):
    """One label with its score, under the names of text-embeddings-inference."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer as the metrics count it.

    `labels` are counted, `confidence` is the probability of the likeliest label (None where there is none), and
    `features` are the values that drift compares with the baseline.
    """

    labels: Sequence[str]
    confidence: float | None
    features: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One logged answer beside the candidate's: the label of each, and its score.

    `moved` is how far the scores are apart, in probability or standard deviations. `weight` orders flips: the heavier,
    the more certain is it that one of the two is wrong.
    """

    before: str
    was_sure: float
    after: str
    sure: float
    moved: float
    flipped: bool
    weight: float


class Target(Frozen):
    """Meaning of a model's outputs. The manifest holds one; every room asks it, not the shape of an array."""

    kind: ClassVar[str]
    """Name in the registry."""
    gives: ClassVar[str]
    """Answer to one input, in words: "one label"."""
    bounds: ClassVar[tuple[float, float]]
    """Least and largest score."""
    features: ClassVar[tuple[str, ...]]
    """Histograms that the baseline has beside the token length."""

    gold_type: ClassVar[type[np.generic]]
    """Type of what rows have, in an array."""

    labels: list[str] = Field(min_length=1)

    def wire(self) -> dict[str, Any]:
        """Return its entries in manifest.json, /info and all files that name a target."""
        return {"labels": self.labels, "target": {"kind": self.kind, **self.model_dump(exclude={"labels"})}}

    @cached_property
    def index(self) -> dict[str, int]:
        """The number of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def counted(self) -> list[str]:
        """Return the names under which answers are counted.

        The baseline's label histogram has them in this order.
        """
        return self.labels

    @abstractmethod
    def parse(self, value: object, *, separator: str | None, renamed: Mapping[str, str]) -> Any:
        """Return a row's entry of `gold` from the value of its column.

        `separator` is between the labels of a text of several, `renamed` are new names of labels. Raises ValueError,
        whose words go on from the name of the column.
        """

    @abstractmethod
    def scores(self, logits: Scores) -> Float32s:
        """Return the scores of outputs, same shape and dtype."""

    @abstractmethod
    def logits(self, scores: Scores) -> Float32s:
        """Return outputs that have these scores, float32 of the same shape."""

    @abstractmethod
    def certain(self, gold: Answers) -> Float32s:
        """Return the scores of a model that is certain of what rows have, [rows, labels]."""

    @abstractmethod
    def answers(self, logits: Scores) -> Answers:
        """Return the answer to each row, [rows, ...], from its outputs."""

    @abstractmethod
    def decided(self, scores: Scores) -> Answers:
        """Return the answer to each row, [rows, ...], from its scores."""

    @abstractmethod
    def differ(self, one: Answers, other: Answers) -> npt.NDArray[np.bool_]:
        """Return bool [rows]: where two answers are not the same."""

    @abstractmethod
    def sureness(self, scores: Scores) -> npt.NDArray[np.float64] | None:
        """Return float64 [rows], the probability that the model gives its own answer.

        It is None where there is none.
        """

    @abstractmethod
    def turns(self, logits: Scores) -> npt.NDArray[np.int64]:
        """Return int64 [rows], the kind of answer of each row.

        With it, a few chosen rows can show every kind.
        """

    @abstractmethod
    def best(self, logits: Scores) -> str:
        """Return the best label of one row's outputs, or what stands for it."""

    @abstractmethod
    def spell(self, answer: Any) -> str:
        """Return one answer as people read it."""

    @abstractmethod
    def ranked(self, scores: Float32s, top_k: int | None = None, *, by: Float32s) -> list[Prediction]:
        """Return the scores of one row as a list, best first `by` its outputs.

        `top_k` is how many of the first are kept.
        """

    @abstractmethod
    def observe(self, scores: Float32s) -> Observation:
        """Return what the metrics count of one row's scores, float32 [labels]."""

    @abstractmethod
    def replayed(self, logged: Mapping[str, float], scores: Mapping[str, float]) -> Replayed:
        """Compare a logged answer with the candidate's.

        A label that one of the two lacks has the probability 0.
        """

    def distance(self, one: Scores, other: Scores) -> float:
        """Return the largest change in probability from one set of scores to the other.

        It is NaN where one is NaN.
        """
        return float(np.abs(np.asarray(one) - np.asarray(other)).max())

    def read(self, answers: Sequence[Sequence[Prediction]]) -> npt.NDArray[np.float64]:
        """Return the scores of served answers, float64 [rows, labels].

        Raises ValueError unless every row has a plausible score for every label.
        """
        index = self.index
        scores = np.full((len(answers), len(self.labels)), np.nan)
        try:
            for row, answer in enumerate(answers):
                for one in answer:
                    scores[row, index[one["label"]]] = float(one["score"])
        except (KeyError, TypeError, ValueError, IndexError):
            raise ValueError("an answer is not a list of the labels that it names, with their scores") from None
        if not self.plausible(scores):
            raise ValueError(f"an answer has not {self.score_words}")
        return scores

    @property
    def score_words(self) -> str:
        """The requirement of `read` on an answer, in words."""
        return f"a probability for each of its {len(self.labels)} labels"

    def plausible(self, scores: npt.NDArray[np.float64]) -> bool:
        """Return whether each row's scores are complete and within bounds.

        They are float64 [rows, labels].
        """
        low, high = self.bounds
        # Written so that NaN, of a label that is missing, is wrong as well.
        return bool((scores >= low).all() and (scores <= high).all())
