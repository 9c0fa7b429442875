"""Interface of quality: metrics of one model, or of two, for one kind of target."""

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
from bentune.quality.statistics.bootstrap import Interval
from bentune.quality.statistics.calibration import Bin

LABEL = "label"


class Report(Frozen):
    """Metrics of one model on labelled rows; `metrics` lists them for tables."""

    shares: ClassVar[frozenset[str]] = frozenset()
    """Metrics that are shares, shown in percent."""
    tiles: ClassVar[tuple[str, ...]]
    """Metrics that a report shows first; the first of them is the headline."""
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
        """Metrics that are defined for these rows, in the order of the tables."""


class Paired(Frozen):
    """Change of each metric from one model to another on the same rows: after minus before."""

    @property
    def metrics(self) -> dict[str, Interval]:
        """Changes by metric."""
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
    """Paired test of two models on the same rows.

    `gained` and `lost` count the rows where only one of them is right, or clearly closer. `p_value` is two-sided, for
    the hypothesis that both are equally good.
    """

    name: str = Field(description="name of the test in tables")
    gained: int
    lost: int
    p_value: float


class Contest(Protocol):
    """Comparison of the candidate with the served model on some rows; above 0 the candidate is better."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def gained(self) -> int:
        """Number of rows where only the candidate is right, or clearly closer."""

    @property
    def lost(self) -> int:
        """Number of rows where only the served model is right, or clearly closer."""

    def difference(self, alpha: float) -> Difference:
        """Return the difference as a share, with its limits.

        Each limit is one-sided at level `alpha`.
        """
        ...

    def test(self) -> PairedTest:
        """Test the hypothesis that the two are equally good."""
        ...

    def worse(self) -> float:
        """Return the p-value of the one-sided test that the candidate is worse."""
        ...

    def inferior(self, margin: float) -> float:
        """Return the one-sided p-value of a loss of `margin` or more by the candidate.

        `margin` is a share.
        """
        ...

    def rows_needed(self, *, margin: float, alpha: float, power: float) -> int:
        """Return the total number of rows that promotes an equally good candidate.

        `power` is the probability of the promotion.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wrong:
    """Wrong answers and the severity of each.

    `wrong` is bool [rows]; `severity`, float64 [rows], orders them. `confidence` and `gold_score` are the probabilities
    of the answer and of the gold answer, float64 [rows], or None for a target without probabilities.
    """

    wrong: Mask
    severity: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64] | None
    gold_score: npt.NDArray[np.float64] | None


class Words(Frozen):
    """Wording of a verdict for the metric that decides.

    `changed` precedes a value and its unit ("accuracy changed by"); `budget` follows them ("points of accuracy").
    `note` explains a metric that a reader may not expect, `method` its intervals and tests.
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
        """Return bool [rows]: true where the answer is right, or close."""

    @abstractmethod
    def wrong(self, logits: Logits, gold: Gold, target: Target) -> Wrong:
        """Return the wrong answers, with the severity of each."""

    @abstractmethod
    def score(self, logits: Logits, gold: Gold, target: Target) -> float:
        """Return one score of a model, at most 1: its accuracy, or the nearest equivalent."""

    @abstractmethod
    def loss(self, reference: Logits, logits: Logits, gold: Gold, target: Target) -> Difference:
        """Return the points that a variant loses to the reference, with a 95 % interval.

        Below 0 the variant is better.
        """

    @abstractmethod
    def contest(self, candidate: Logits, served: Logits, gold: Gold, target: Target) -> Contest:
        """Return the comparison of the candidate with the served model."""

    @abstractmethod
    def compared(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, settings: CompareSettings
    ) -> list[Metric]:
        """Return each metric of both sides with its paired difference.

        The first is the metric that decides.
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
        """Return the reliability table; it is empty for a target without probabilities."""

    @abstractmethod
    def calibration_change(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, **options: Any
    ) -> Difference:
        """Return the change of the expected calibration error.

        It exists only for targets with probabilities.
        """

    def of_slice(self, report: Report, gold: Gold) -> dict[str, Interval]:
        """Return the metrics that a slice shows; `gold` has its gold answers."""
        del gold
        return {name: report.metrics[name] for name in type(report).sliced if name in report.metrics}

    @abstractmethod
    def groups(self, gold: Gold, target: Target) -> Iterator[tuple[str, str, Mask]]:
        """Yield groups of rows by their gold answers: a name, a value, and bool [rows]."""
