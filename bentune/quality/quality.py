"""Interface of quality: metrics of one kind of target, of one model and of two."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bentune.bundle.arrays import Gold, Logits, Mask
from bentune.bundle.files import Frozen
from bentune.bundle.targets.target import Target
from bentune.bundle.verdict import CompareSettings, Difference
from bentune.quality.bootstrap import Interval
from bentune.quality.calibration import Bin

LABEL = "label"


class Report(Frozen):
    """Metrics of one model on labelled rows; `metrics` lists them for tables."""

    shares: ClassVar[frozenset[str]] = frozenset()
    """Metrics that are shares, shown in percent."""
    tiles: ClassVar[tuple[str, ...]]
    """Metrics that a report shows first; the first of them decides."""
    sliced: ClassVar[tuple[str, ...]]
    """Metrics that a slice shows."""
    hub: ClassVar[dict[str, str]]
    """Metrics of the model card, with the names that the hub has for them."""
    higher_is_better: ClassVar[frozenset[str]]
    lower_is_better: ClassVar[frozenset[str]]

    rows: int
    labels: list[str]
    confidence: float
    resamples: int
    seed: int

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Interval]:
        """Every metric that these rows have, in the order of the tables."""


class Paired(Frozen):
    """Change of each metric from one model to another on the same rows: after minus before."""

    @property
    def metrics(self) -> dict[str, Interval]:
        """The changes by metric."""
        return {name: getattr(self, name) for name in type(self).model_fields}


class Metric(Frozen):
    """A metric of both sides of a comparison, and candidate minus served; a `share` is shown in percent."""

    name: str
    candidate: float
    served: float
    difference: Difference
    higher_is_better: bool
    share: bool = False


class PairedTest(Frozen):
    """Test of whether one model is better than another on the same rows.

    `gained` and `lost` count the rows where just one of them is right, or clearly closer. `p_value` is two-sided, for
    that neither is better.
    """

    name: str = Field(description="the test, as tables name it")
    gained: int
    lost: int
    p_value: float


class Contest(Protocol):
    """The candidate beside the served model on some rows; above 0 the candidate is better."""

    @property
    def rows(self) -> int:
        """Rows that both answered."""

    @property
    def gained(self) -> int:
        """Rows where the candidate alone is right, or clearly closer."""

    @property
    def lost(self) -> int:
        """Rows where the served model alone is right, or clearly closer."""

    def difference(self, alpha: float) -> Difference:
        """Return the difference as a share, with its limits.

        Each limit is wrong at most `alpha` of the time.
        """
        ...

    def test(self) -> PairedTest:
        """Test whether the two are equally good."""
        ...

    def worse(self) -> float:
        """Return the one-sided p-value for that the candidate is worse."""
        ...

    def inferior(self, margin: float) -> float:
        """Return the one-sided p-value for a loss of `margin` or more.

        The loss is the candidate's, and `margin` is a share.
        """
        ...

    def rows_needed(self, *, margin: float, alpha: float, power: float) -> int:
        """Return how many rows in all promote an equally good candidate.

        They do so with probability `power`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wrong:
    """Wrong answers and how bad each is.

    `wrong` is bool [rows], `severity` float64 [rows] orders them. `confidence` and `gold_score` are the probabilities
    of the answer and of what would be right, float64 [rows], None where answers have none.
    """

    wrong: Mask
    severity: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64] | None
    gold_score: npt.NDArray[np.float64] | None


class Words(Frozen):
    """The metric that decides, in the words of a verdict.

    `changed` comes before a value and its unit: "accuracy changed by"; `budget` comes after them: "points of accuracy".
    `note` says what the metric counts, where a reader would not expect it, `method` what its intervals and tests are.
    """

    metric: str
    changed: str
    unit: str
    one_unit: str
    budget: str
    heading: str = "Accuracy, candidate minus served, in points"
    method: str
    alone: str = "right, the other wrong"
    note: str = ""


class Quality(ABC):
    """Quality of the outputs for one kind of target."""

    report: ClassVar[type[Report]]
    paired_report: ClassVar[type[Paired]]
    metrics: ClassVar[tuple[str, ...]]
    """Metrics of a report."""
    words: ClassVar[Words]

    @abstractmethod
    def measure(self, logits: Logits, gold: Gold, target: Target, **options: Any) -> Report:
        """Measure one model.

        `options` are `bins`, `ranks`, `resamples`, `confidence` and `seed`. Raises InputError.
        """

    @abstractmethod
    def paired(
        self, before: Logits, after: Logits, gold: Gold, target: Target, *, resamples: int, confidence: float, seed: int
    ) -> Paired:
        """Measure the change from one model to the other on the same rows.

        Raises InputError.
        """

    @abstractmethod
    def right(self, logits: Logits, gold: Gold, target: Target) -> Mask:
        """Return bool [rows]: where the answer is right, or close."""

    @abstractmethod
    def wrong(self, logits: Logits, gold: Gold, target: Target) -> Wrong:
        """Return which answers are wrong, and how bad each is."""

    @abstractmethod
    def score(self, logits: Logits, gold: Gold, target: Target) -> float:
        """Return one number of how good a model is, at most 1.

        It is accuracy, or the metric that comes closest to it.
        """

    @abstractmethod
    def loss(self, reference: Logits, logits: Logits, gold: Gold, target: Target) -> Difference:
        """Return the points that a variant loses to the reference, with a 95 % interval.

        Below 0 it is better.
        """

    @abstractmethod
    def contest(self, candidate: Logits, served: Logits, gold: Gold, target: Target) -> Contest:
        """Return the candidate beside the served model."""

    @abstractmethod
    def compared(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, settings: CompareSettings
    ) -> list[Metric]:
        """Return each metric of both sides with its paired difference.

        The one that decides is the first.
        """

    def rows_to_compare(self, changed: float, settings: CompareSettings) -> int | None:
        """Return the rows that promote an equally good candidate, or None where rows alone do not tell.

        Only one of the two is right in a share of `changed` of them.
        """
        del changed, settings
        return None

    @abstractmethod
    def commonest(self, gold: Gold, target: Target) -> Any:
        """Return the best answer for all rows alike, an entry of `gold`."""

    @abstractmethod
    def reliability(self, logits: Logits, gold: Gold, target: Target, bins: int) -> list[Bin]:
        """Return the reliability table; empty where answers have no probability."""

    @abstractmethod
    def calibration_change(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, **options: Any
    ) -> Difference:
        """Return the change of the expected calibration error.

        For targets that a temperature fits.
        """

    def of_slice(self, report: Report, gold: Gold) -> dict[str, Interval]:
        """Return the metrics that a slice shows; `gold` are its rows."""
        del gold
        return {name: report.metrics[name] for name in type(report).sliced if name in report.metrics}

    @abstractmethod
    def groups(self, gold: Gold, target: Target) -> Iterator[tuple[str, str, Mask]]:
        """Yield groups of rows by what they have: a name, a value, and bool [rows]."""
