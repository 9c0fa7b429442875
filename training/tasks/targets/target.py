"""The interface of a target in training: the reading, splitting, learning and measuring of labels.

A check of a recipe imports the targets, so this module and they have slow imports inside functions only.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Gold, Ints, Mask
from bentune.bundle.errors import InputError
from bentune.bundle.targets.target import Target
from bentune.quality.registry import QUALITIES
from training.recipe.data import DataSettings
from training.recipe.evaluate import EvaluateSettings
from training.recipe.search import SearchSettings
from training.recipe.section import Section
from training.recipe.train import TrainSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from training.tasks.targets.losses import Loss

"""Labels of rows: int64 [rows], int64 [rows, labels] with 1 for each label of a row, or float64 [rows]."""


class LabelledRows(Protocol):
    """Rows to split, with their labels: `label_ids` are places in `label_names`, the labels as text."""

    @property
    def label_ids(self) -> npt.NDArray[np.int32]:
        """Place of each row's label in `label_names`."""

    @property
    def label_names(self) -> list[str]:
        """Labels as text; for multi-label rows, all labels of a row in one text."""

    @property
    def label_counts(self) -> dict[str, int]:
        """Number of rows per label, the most frequent first."""

    def label_pairs(self) -> tuple[Ints, Ints]:
        """Return (row, label) for every label of every row."""

    def __len__(self) -> int: ...


class TrainingTarget(ABC):
    """Kind of label, and its use in training."""

    kind: ClassVar[str]
    """Kind of the bundle's target."""
    problem_type: ClassVar[str]
    """Name of the problem in a model's config."""
    validation: ClassVar[tuple[str, ...]]
    """Metrics of the validation rows."""
    note: ClassVar[str] = ""
    """Sentence about a row's labels for the reports, empty for one label a row."""

    def use(self, noun: str, nouns: str) -> str:
        """Return the use of the model, two sentences for the model card."""
        return (
            f"Give one of its labels, with the probability of each, to {nouns} like those that it was trained on. It "
            f"has no other labels: every {noun} gets one, however foreign it is."
        )

    def __init__(self, data: DataSettings) -> None:
        self.data = data

    def problem_of(self, section: Section | None) -> str:
        """Return why a section of the recipe does not fit this target, else an empty text."""
        match section:
            case TrainSettings() if section.early_stopping and section.early_stopping.metric not in self.validation:
                return f"early_stopping.metric: {self.other_metric(section.early_stopping.metric)}"
            case SearchSettings() if section != SearchSettings() and section.metric not in (*self.validation, "loss"):
                return f"metric: {self.other_metric(section.metric)}"
            case EvaluateSettings():
                return next(filter(None, (self._bad_bound(*one, section) for one in section.minimum.items())), "")
        return ""

    def _bad_bound(self, metric: str, bound: float, section: EvaluateSettings) -> str:
        """Return, in words, why a bound of `evaluate.minimum` can never be reached or means nothing."""
        quality = QUALITIES[self.kind]
        if metric not in quality.metrics:
            return f"minimum: {metric!r} is not measured here; the metrics are {', '.join(quality.metrics)}"
        if metric == "mean_absolute_error" and "accuracy" in quality.metrics and not section.ordinal:
            return f"minimum: {metric} is of labels in order: set evaluate.ordinal too"
        if metric in quality.report.higher_is_better and not bound <= 1:
            return f"minimum: {metric} is at most 1, and never reaches {bound:g}"
        if metric in quality.report.lower_is_better and not bound >= 0:
            return f"minimum: {metric} is at least 0, and never falls to {bound:g}"
        return ""

    def other_metric(self, metric: str) -> str:
        """Return the message for an unknown validation metric."""
        *most, last = self.validation
        return f"{metric!r} is not measured here; give {', '.join(most)} or {last}"

    def best_by(self, train: TrainSettings) -> str:
        """Return the validation metric that picks the best checkpoint."""
        return train.early_stopping.metric if train.early_stopping is not None else self.validation[0]

    def learned(self, gold: Gold, target: Target) -> Gold:
        """Return labels as the model learns them; `target` is the bundle's."""
        del target
        return gold

    @abstractmethod
    def read(self, value: object) -> tuple[str, set[str]]:
        """Return a row's label as one text, and the labels' given names.

        Equal labels have the same text. Raises ValueError, whose message continues after the name of the column.
        """

    @abstractmethod
    def names(self, label: str) -> list[str]:
        """Return the labels in a text that `read` returned."""

    @abstractmethod
    def order(self, labels: Iterable[str], where: str) -> list[str]:
        """Return the labels of a model in its order.

        Raises InputError for labels that no model can learn.
        """

    @abstractmethod
    def column(self, spelled: Sequence[str], labels: Sequence[str]) -> "pa.Array":
        """Return the column `label` of a split's file.

        Labels that are not in `labels` are left out.
        """

    @abstractmethod
    def column_type(self, labels: Sequence[str]) -> "pa.DataType":
        """Return the type of the column."""

    @abstractmethod
    def written(self, label: str) -> Any:
        """Convert a text that `read` returned to the form in held_out.jsonl."""

    @abstractmethod
    def target(self, labels: list[str], gold: Gold) -> Target:
        """Return the bundle's target; `gold` are the labels of the training rows."""

    def labels_a_row(self, gold: Gold) -> dict[str, float] | None:
        """Return the mean number of labels a row, and the number of rows without one.

        The result is None where each row has one label.
        """
        del gold
        return None

    def strata(self, rows: LabelledRows) -> tuple[Ints, Ints]:
        """Return (row, stratum) for every stratum of every row.

        Groups are drawn so that each stratum has its share.
        """
        return rows.label_pairs()

    @abstractmethod
    def draw(self, rows: LabelledRows, share: float, seed: int, where: str) -> Mask:
        """Draw a share of the rows, the same of each label: bool [rows].

        Raises InputError where that is impossible.
        """

    @abstractmethod
    def draw_among(self, rows: LabelledRows, among: Mask, share: float, seed: int) -> Mask:
        """Draw a share of the rows `among`, however few each label has: bool [rows]."""

    @abstractmethod
    def draw_gold(self, gold: Gold, share: float, seed: int) -> Mask:
        """Draw a share of training rows, bool [rows]; each label keeps at least one."""

    @abstractmethod
    def counts(self, gold: Gold, labels: int) -> Ints:
        """Count the rows of each label, int64 [labels]."""

    @abstractmethod
    def weights(self, gold: Gold, labels: int) -> list[float]:
        """Return the weight of each label that balances them."""

    @abstractmethod
    def loss(self, weights: list[float] | None = None, smoothing: float = 0.0) -> "Loss":
        """Return the loss to minimize.

        Without weights and smoothing it is also the loss of validation.
        """

    @abstractmethod
    def validate(self, logits: npt.NDArray[np.float64], gold: Gold) -> dict[str, float]:
        """Return the metrics of the validation rows."""

    @abstractmethod
    def log_loss(self, logits: npt.NDArray[np.float64], gold: Gold) -> float:
        """Return the mean loss of the rows, in nats, which a temperature minimizes."""


def higher_is_better(metric: str) -> bool:
    """Return True where a higher validation metric is better: all but loss and error."""
    return not metric.endswith(("_loss", "_error"))


def cannot_split(rows: int, share: float, where: str, why: object) -> InputError:
    """Return the error of rows that cannot be split."""
    return InputError(f"{where}: {rows} rows cannot be split at {share}: {why}")


def renamed(names: Iterable[str], new: Mapping[str, str]) -> list[str]:
    """Return labels by their new names."""
    return [new.get(name, name) for name in names]
