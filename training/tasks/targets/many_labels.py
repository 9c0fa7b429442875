"""Target of multi-label rows, learned by binary cross-entropy."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Gold, Ints, Mask
from bentune.bundle.errors import InputError
from bentune.bundle.targets.label_lists import labels_in, labels_of, spelled
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.target import Target
from training.recipe.compression import DistillSettings
from training.recipe.evaluate import EvaluateSettings
from training.recipe.section import Section
from training.recipe.train import TrainSettings
from training.tasks.targets.one_label import OneLabelTraining, require_two_rows
from training.tasks.targets.stratify import stratified
from training.tasks.targets.target import LabelledRows, cannot_split

if TYPE_CHECKING:
    import pyarrow as pa

    from training.tasks.targets.losses import Loss

MOST_LABELS = 2000
"""Largest number of labels, because each row stores a number for each."""


class ManyLabelsTraining(OneLabelTraining):
    """Multi-label target: each row has a set of labels, which may be empty."""

    kind: ClassVar = ManyLabels.kind
    problem_type: ClassVar = "multi_label_classification"
    validation: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1", "micro_f1", "log_loss")

    note: ClassVar = "any number; accuracy counts rows with all of theirs and none too many"

    def use(self, noun: str, nouns: str) -> str:
        """Return the use of the model, for the model card."""
        return (
            f"Give any number of its labels, those whose probability is above one half, to {nouns} like those that it "
            f"was trained on. It has no other labels, and a {noun} that gets none may still be about something."
        )

    def problem_of(self, section: Section | None) -> str:
        """Return why settings for one label a row are refused."""
        match section:
            case TrainSettings() if section.balance not in ("none", "weights"):
                return (
                    "balance: with data.multi_label a row that is repeated or left out counts for all of its labels: "
                    "give none or weights"
                )
            case DistillSettings():
                return (
                    "with data.multi_label there is no distillation: its loss is one of labels that exclude each other"
                )
            case EvaluateSettings() if section.ordinal:
                return "ordinal: with data.multi_label a row has no rank: leave it out"
        return super().problem_of(section)

    def other_metric(self, metric: str) -> str:
        """Return why a metric is refused, with the metrics of multi-label rows."""
        *most, last = self.validation
        return f"{metric} is for one label a row; with data.multi_label give {', '.join(most)} or {last}"

    def read(self, value: object) -> tuple[str, set[str]]:
        """Return all labels of the row as one text, and their names."""
        names = labels_of(value, self.data.label_separator)
        return spelled(map(self.named, names)), set(names)

    def names(self, label: str) -> list[str]:
        """Return the labels in the text of `read`."""
        return labels_in(label)

    def order(self, labels: Iterable[str], where: str) -> list[str]:
        """Return the labels by number or letter.

        Raises InputError for fewer than two, or more than MOST_LABELS.
        """
        ordered = super().order(labels, where)
        if len(ordered) > MOST_LABELS:
            raise InputError(
                f"data.source: {where} has {len(ordered):,} labels, and with data.multi_label there may be "
                f"{MOST_LABELS:,}: is data.columns.label the right column? Merge rare ones with data.labels"
            )
        return ordered

    def column(self, spelled: Sequence[str], labels: Sequence[str]) -> "pa.Array":
        """Return a 0 or 1 for each of the labels."""
        import pyarrow as pa

        number = {label: place for place, label in enumerate(labels)}
        marks = np.zeros((len(spelled), len(labels)), dtype=np.int8)
        for mark, label in zip(marks, spelled, strict=True):
            mark[[number[name] for name in labels_in(label) if name in number]] = 1
        return pa.FixedSizeListArray.from_arrays(pa.array(marks.ravel()), len(labels))

    def column_type(self, labels: Sequence[str]) -> "pa.DataType":
        """Return a list of int8, one for each label."""
        import pyarrow as pa

        return pa.list_(pa.int8(), len(labels))

    def written(self, label: str) -> Any:
        """Return the list of labels."""
        return labels_in(label)

    def target(self, labels: list[str], gold: Gold) -> Target:
        """Return the labels."""
        del gold
        return ManyLabels(labels=labels)

    def labels_a_row(self, gold: Gold) -> dict[str, float] | None:
        """Return the mean number of labels a row, and the rows without one."""
        sizes = gold.sum(axis=1)
        return {"mean": float(sizes.mean()), "without": int((sizes == 0).sum())}

    def strata(self, rows: LabelledRows) -> tuple[Ints, Ints]:
        """Return the labels of each row, and one more for rows without a label."""
        places, labels = rows.label_pairs()
        without = np.setdiff1d(np.arange(len(rows)), places)
        nothing = labels.max(initial=-1) + 1
        return np.append(places, without), np.append(labels, np.full(len(without), nothing))

    def draw(self, rows: LabelledRows, share: float, seed: int, where: str) -> Mask:
        """Draw by iterative stratification."""
        require_two_rows(rows, where)
        chosen = stratified(*rows.label_pairs(), len(rows), share, seed)
        if chosen.all() or not chosen.any():
            raise cannot_split(len(rows), share, where, "one side would be empty")
        return chosen

    def draw_among(self, rows: LabelledRows, among: Mask, share: float, seed: int) -> Mask:
        """Draw by iterative stratification among these rows."""
        places, labels = rows.label_pairs()
        number = np.cumsum(among) - 1
        inside = among[places]
        chosen = np.zeros(len(among), dtype=np.bool_)
        chosen[among] = stratified(number[places[inside]], labels[inside], int(among.sum()), share, seed)
        return chosen

    def draw_gold(self, gold: Gold, share: float, seed: int) -> Mask:
        """Draw by iterative stratification."""
        places, labels = np.nonzero(gold)
        return stratified(places, labels, len(gold), share, seed)

    def counts(self, gold: Gold, labels: int) -> Ints:
        """Count the rows of each label."""
        del labels
        return np.asarray(gold.sum(axis=0))

    def weights(self, gold: Gold, labels: int) -> list[float]:
        """Return per label the number of rows without it divided by the rows with it.

        The weight is 1 where no row or every row has the label.
        """
        return [float((len(gold) - own) / own) if 0 < own < len(gold) else 1.0 for own in self.counts(gold, labels)]

    def loss(self, weights: list[float] | None = None, smoothing: float = 0.0) -> "Loss":
        """Return binary cross-entropy."""
        import torch

        from training.tasks.targets.losses import WeightedBinaryCrossEntropy, binary_cross_entropy

        if weights is None and not smoothing:
            return binary_cross_entropy
        return WeightedBinaryCrossEntropy(
            torch.tensor(weights, dtype=torch.float32) if weights is not None else None, smoothing
        )

    def validate(self, logits: npt.NDArray[np.float64], gold: Gold) -> dict[str, float]:
        """Return subset accuracy, F1 and log loss.

        F1 is over all labels, and the log loss is a mean over rows and labels.
        """
        from sklearn.metrics import f1_score

        predicted = (logits > 0).astype(np.int64)
        found = {
            "accuracy": (predicted == gold).all(axis=1).mean(),
            "macro_f1": f1_score(gold, predicted, average="macro", zero_division=0),
            "micro_f1": f1_score(gold, predicted, average="micro", zero_division=0),
            "log_loss": self.log_loss(logits, gold),
        }
        return {name: float(value) for name, value in found.items()}

    def log_loss(self, logits: npt.NDArray[np.float64], gold: Gold) -> float:
        """Return the binary cross-entropy of every decision."""
        return float(np.logaddexp(0, np.where(gold > 0, -logits, logits)).mean())
