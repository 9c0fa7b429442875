"""The interface of a target in training: what a row's label is, how rows are split by it, and how it is learned.

Nothing heavy is imported here or by the targets when they are imported: a recipe is checked by them.
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

"""Labels of rows: int64 [rows], int64 [rows, labels] with 1 for each that a row has, or float64 [rows]."""


class LabelledRows(Protocol):
    """Rows to split, with their labels: `label_ids` are places in `label_names`, which are spelled labels."""

    @property
    def label_ids(self) -> npt.NDArray[np.int32]:
        """The spelled label of each row."""

    @property
    def label_names(self) -> list[str]:
        """Spelled labels."""

    @property
    def label_counts(self) -> dict[str, int]:
        """Number of rows per label, the most frequent first."""

    def label_pairs(self) -> tuple[Ints, Ints]:
        """Return (row, label) of every label that a row has."""

    def __len__(self) -> int: ...


class TrainingTarget(ABC):
    """Kind of a row's label, and the way it is learned."""

    kind: ClassVar[str]
    """The bundle's target."""
    problem_type: ClassVar[str]
    """Name of the problem in a model's config."""
    validation: ClassVar[tuple[str, ...]]
    """Metrics of the validation rows."""
    note: ClassVar[str] = ""
    """Labels that a row may have, in words, where a reader of a report would not expect them."""

    def use(self, noun: str, nouns: str) -> str:
        """Return what the model is for, in two sentences of the model card."""
        return (
            f"Give one of its labels, with the probability of each, to {nouns} like those that it was trained on. It "
            f"knows no other labels: every {noun} gets one, however foreign it is."
        )

    def __init__(self, data: DataSettings) -> None:
        self.data = data

    def problem_of(self, section: Section | None) -> str:
        """Return, in words, why a section of the recipe does not go with this target.

        The text is empty where it does.
        """
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
        """Return what to say of a validation metric that there is not."""
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
        """Return a row's label as one text, and the names that it was given by.

        Equal labels have the same text. Raises ValueError, whose words go on from the name of the column.
        """

    @abstractmethod
    def names(self, label: str) -> list[str]:
        """Return the labels in what `read` gave."""

    @abstractmethod
    def order(self, labels: Iterable[str], where: str) -> list[str]:
        """Return the labels of a model in its order.

        Raises InputError for what no model can learn.
        """

    @abstractmethod
    def column(self, spelled: Sequence[str], labels: Sequence[str]) -> "pa.Array":
        """Return the column `label` of a split's file.

        A label that is not among `labels` is left out.
        """

    @abstractmethod
    def column_type(self, labels: Sequence[str]) -> "pa.DataType":
        """Return the type of the column."""

    @abstractmethod
    def written(self, label: str) -> Any:
        """Return what `read` gave as a row of held_out.jsonl has it."""

    @abstractmethod
    def target(self, labels: list[str], gold: Gold) -> Target:
        """Return the bundle's target; `gold` are the labels of the training rows."""

    def labels_a_row(self, gold: Gold) -> dict[str, float] | None:
        """Return the mean number of labels a row, and the rows without one.

        The result is None where each row has one label.
        """
        del gold
        return None

    def strata(self, rows: LabelledRows) -> tuple[Ints, Ints]:
        """Return (row, stratum) of every stratum that a row is in.

        Groups are drawn so that each stratum has its share.
        """
        return rows.label_pairs()

    @abstractmethod
    def draw(self, rows: LabelledRows, share: float, seed: int, where: str) -> Mask:
        """Draw a share of the rows, the same of each label: bool [rows].

        Raises InputError where that cannot be.
        """

    @abstractmethod
    def draw_among(self, rows: LabelledRows, among: Mask, share: float, seed: int) -> Mask:
        """Draw a share of the rows `among`, however few each label has: bool [rows]."""

    @abstractmethod
    def draw_gold(self, gold: Gold, share: float, seed: int) -> Mask:
        """Draw a share of training rows, bool [rows], that leaves each label at least one."""

    @abstractmethod
    def counts(self, gold: Gold, labels: int) -> Ints:
        """Return how many rows have each label, int64 [labels]."""

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
        """Return the mean loss of the rows, in nats: what a temperature is fitted by."""


def higher_is_better(metric: str) -> bool:
    """Return true where a higher validation metric is better: all but loss and error."""
    return not metric.endswith(("_loss", "_error"))


def cannot_split(rows: int, share: float, where: str, why: object) -> InputError:
    """Return the error of rows that cannot be split."""
    return InputError(f"{where}: {rows} rows cannot be split at {share}: {why}")


def renamed(names: Iterable[str], new: Mapping[str, str]) -> list[str]:
    """Return labels by their new names."""
    return [new.get(name, name) for name in names]
