"""Interface of a target, the meaning of a model's outputs from training to the served answer.

Outputs are the graph's `logits`, float32 [rows, labels]. Scores are the values in a response. An answer is the model's
decision for a row.
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
    """One label with its score, with the keys of text-embeddings-inference."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Observation:
    """Metrics and drift features of one answer.

    `labels` are counted, `confidence` is the probability of the likeliest label (None where there is none), and
    `features` are compared with the drift baseline.
    """

    labels: Sequence[str]
    confidence: float | None
    features: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replayed:
    """One logged answer beside the candidate's: the label of each, and its score.

    `moved` is the distance of the scores, in probability or standard deviations. `weight` orders flips: the greater it
    is, the more certain it is that one of the two is wrong.
    """

    before: str
    was_sure: float
    after: str
    sure: float
    moved: float
    flipped: bool
    weight: float


class Target(Frozen):
    """Meaning of a model's outputs. The manifest holds one; all code uses it, never the shape of an array."""

    kind: ClassVar[str]
    """Name in the registry."""
    gives: ClassVar[str]
    """Answer to one input, in words: "one label"."""
    bounds: ClassVar[tuple[float, float]]
    """Least and largest score."""
    features: ClassVar[tuple[str, ...]]
    """Histograms of the baseline besides the token length."""

    gold_type: ClassVar[type[np.generic]]
    """Type of gold answers in an array."""

    labels: list[str] = Field(min_length=1)

    def wire(self) -> dict[str, Any]:
        """Return its entries in manifest.json, /info and all files that name a target."""
        return {"labels": self.labels, "target": {"kind": self.kind, **self.model_dump(exclude={"labels"})}}

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @property
    def counted(self) -> list[str]:
        """Names under which answers are counted.

        The baseline's label histogram has them in this order.
        """
        return self.labels

    @abstractmethod
    def parse(self, value: object, *, separator: str | None, renamed: Mapping[str, str]) -> Any:
        """Return a row's entry of `gold` from the value of its column.

        `separator` splits a text of several labels, `renamed` maps former names of labels to new ones. Raises
        ValueError, whose message follows the name of the column.
        """

    @abstractmethod
    def scores(self, logits: Scores) -> Float32s:
        """Return the scores of outputs, same shape and dtype."""

    @abstractmethod
    def logits(self, scores: Scores) -> Float32s:
        """Return outputs with these scores, float32 of the same shape."""

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
        """Return bool [rows]: true where two answers differ."""

    @abstractmethod
    def sureness(self, scores: Scores) -> npt.NDArray[np.float64] | None:
        """Return float64 [rows], the probability that the model gives its own answer.

        It is None for a target without probabilities.
        """

    @abstractmethod
    def turns(self, logits: Scores) -> npt.NDArray[np.int64]:
        """Return int64 [rows], the kind of answer of each row.

        It serves to choose a few rows that cover every kind.
        """

    @abstractmethod
    def best(self, logits: Scores) -> str:
        """Return the best label of one row's outputs, or the answer as text."""

    @abstractmethod
    def spell(self, answer: Any) -> str:
        """Return one answer as text."""

    @abstractmethod
    def ranked(self, scores: Float32s, top_k: int | None = None, *, by: Float32s) -> list[Prediction]:
        """Return the scores of one row as a list, best first `by` its outputs.

        `top_k` limits the list to the first ones.
        """

    @abstractmethod
    def observe(self, scores: Float32s) -> Observation:
        """Return the metrics and drift features of one row's scores, float32 [labels]."""

    @abstractmethod
    def replayed(self, logged: Mapping[str, float], scores: Mapping[str, float]) -> Replayed:
        """Compare a logged answer with the candidate's.

        A label that is missing in one of the two has the probability 0.
        """

    def distance(self, one: Scores, other: Scores) -> float:
        """Return the largest change in probability from one set of scores to the other.

        It is NaN when a score is NaN.
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
            raise ValueError("an answer is not a list of the target's labels with their scores") from None
        if not self.plausible(scores):
            raise ValueError(f"an answer does not have {self.score_words}")
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
        # In this form the NaN of a missing label is implausible too.
        return bool((scores >= low).all() and (scores <= high).all())
