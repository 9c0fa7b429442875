"""Target of rows that have one number each, learned by squared error in standard deviations."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Gold, Ints, Mask
from bentune.bundle.errors import InputError
from bentune.bundle.targets.number import Number, number_in
from bentune.bundle.targets.target import Target
from training.recipe.evaluate import CalibrateSettings, EvaluateSettings
from training.recipe.section import Section
from training.recipe.train import TrainSettings
from training.tasks.targets.stratify import stratified
from training.tasks.targets.target import LabelledRows, TrainingTarget, cannot_split

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from training.tasks.targets.losses import Loss

STRATA = 10


class NumberTraining(TrainingTarget):
    """One number a row; the column `label` is its name."""

    kind: ClassVar = Number.kind
    problem_type: ClassVar = "regression"
    validation: ClassVar[tuple[str, ...]] = ("mean_absolute_error", "root_mean_squared_error", "spearman")

    def use(self, noun: str, nouns: str) -> str:
        """Return the use of the model, for the model card."""
        return (
            f"Give {nouns} like those that it was trained on the number {self.data.columns.label!r}, in the unit of "
            f"the training rows. It gives every {noun} one, however foreign it is."
        )

    def problem_of(self, section: Section | None) -> str:
        """Return why settings for classes are refused."""
        match section:
            case TrainSettings() if section.balance != "none":
                return "balance: a number has no classes to balance; leave it out"
            case TrainSettings() if section.label_smoothing:
                return "label_smoothing: a number has no classes to smooth; leave it out"
            case EvaluateSettings() if section.ordinal:
                return "ordinal: a number is in order by itself; leave it out"
            case CalibrateSettings() if section.temperature:
                return "temperature: a number has no probability to calibrate; leave it out"
        return super().problem_of(section)

    def read(self, value: object) -> tuple[str, set[str]]:
        """Return the number as text; equal numbers have equal texts."""
        return repr(number_in(value)), set()

    def names(self, label: str) -> list[str]:
        """Return the column's name, which is the only label."""
        del label
        return [self.data.columns.label]

    def order(self, labels: Iterable[str], where: str) -> list[str]:
        """Return the column's name."""
        del labels, where
        return [self.data.columns.label]

    def column(self, spelled: Sequence[str], labels: Sequence[str]) -> "pa.Array":
        """Return the numbers, float64."""
        import pyarrow as pa

        return pa.array([float(number) for number in spelled], self.column_type(labels))

    def column_type(self, labels: Sequence[str]) -> "pa.DataType":
        """Return float64."""
        import pyarrow as pa

        del labels
        return pa.float64()

    def written(self, label: str) -> Any:
        """Return the number."""
        return float(label)

    def target(self, labels: list[str], gold: Gold) -> Target:
        """Return the number's mean and standard deviation.

        Raises InputError where all numbers are the same.
        """
        scale = float(np.std(gold))
        if not scale > 0:
            raise InputError(f"data.columns.label: {labels[0]!r} is the same number in every training row")
        return Number(labels=labels, center=float(np.mean(gold)), scale=scale)

    def learned(self, gold: Gold, target: Target) -> Gold:
        """Return the numbers in standard deviations from their mean."""
        return target.logits(gold)

    def strata(self, rows: LabelledRows) -> tuple[Ints, Ints]:
        """Return (row, stratum): tenths of the rows by their number."""
        return np.arange(len(rows)), _tenths(_numbers(rows))

    def draw(self, rows: LabelledRows, share: float, seed: int, where: str) -> Mask:
        """Draw the same share of each tenth of the rows."""
        chosen = self.draw_gold(_numbers(rows), share, seed)
        if chosen.all() or not chosen.any():
            raise cannot_split(len(rows), share, where, "one side would be empty")
        return chosen

    def draw_among(self, rows: LabelledRows, among: Mask, share: float, seed: int) -> Mask:
        """Draw the same share of each tenth of these rows."""
        chosen = np.zeros(len(among), dtype=np.bool_)
        chosen[among] = self.draw_gold(_numbers(rows)[among], share, seed)
        return chosen

    def draw_gold(self, gold: Gold, share: float, seed: int) -> Mask:
        """Draw the same share of each tenth of the rows."""
        return stratified(np.arange(len(gold)), _tenths(gold), len(gold), share, seed)

    def counts(self, gold: Gold, labels: int) -> Ints:
        """Return the number of rows, because each has the only label."""
        del labels
        return np.array([len(gold)])

    def weights(self, gold: Gold, labels: int) -> list[float]:
        """Raise InputError: a number has no classes."""
        del gold, labels
        raise InputError("train.balance: a number has no classes to balance; leave it out")

    def loss(self, weights: list[float] | None = None, smoothing: float = 0.0) -> "Loss":
        """Return the squared error."""
        del weights, smoothing
        return squared_error

    def validate(self, logits: npt.NDArray[np.float64], gold: Gold) -> dict[str, float]:
        """Return the errors in standard deviations, and the rank correlation."""
        from scipy.stats import spearmanr

        found = logits[:, 0]
        ranked = spearmanr(found, gold).statistic if len({*found.tolist()}) > 1 and len({*gold.tolist()}) > 1 else 0.0
        return {
            "mean_absolute_error": float(np.abs(found - gold).mean()),
            "root_mean_squared_error": float(np.sqrt(((found - gold) ** 2).mean())),
            "spearman": float(ranked),
        }

    def log_loss(self, logits: npt.NDArray[np.float64], gold: Gold) -> float:
        """Raise InputError: a number has no probability."""
        del logits, gold
        raise InputError("calibrate.temperature: a number has no probability to calibrate; leave it out")


def squared_error(
    logits: "torch.Tensor",
    labels: "torch.Tensor",
    inputs: "Mapping[str, torch.Tensor]",  # noqa: ARG001
) -> "torch.Tensor":
    """Return the mean squared error.

    `logits` are float [rows, 1], `labels` are float [rows].
    """
    from torch.nn import functional

    return functional.mse_loss(logits.float().squeeze(-1), labels.float())


def _numbers(rows: LabelledRows) -> npt.NDArray[np.float64]:
    return np.array([float(name) for name in rows.label_names], dtype=np.float64)[rows.label_ids]


def _tenths(numbers: npt.NDArray[np.float64]) -> Ints:
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, STRATA + 1)[1:-1]))
    return np.searchsorted(edges, numbers, side="right").astype(np.int64)
