"""Target of rows that have one label each, learned by cross-entropy."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Gold, Ints, Mask
from bentune.bundle.errors import InputError
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.targets.target import Target
from training.recipe.data import label_text
from training.tasks.targets.label_order import label_order
from training.tasks.targets.target import LabelledRows, TrainingTarget, cannot_split

if TYPE_CHECKING:
    import pyarrow as pa

    from training.tasks.targets.losses import Loss

SURROGATE = re.compile("[\ud800-\udfff]")


class OneLabelTraining(TrainingTarget):
    """One label a row."""

    kind: ClassVar = OneLabel.kind
    problem_type: ClassVar = "single_label_classification"
    validation: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "micro_f1",
        "mcc",
        "log_loss",
    )

    def read(self, value: object) -> tuple[str, set[str]]:
        """Return the label's new name, and its given name."""
        if not isinstance(value, str | int | float) or not label_text(value):
            raise ValueError(f"has no label ({type(value).__name__})")
        # pandas writes NaN for a missing label.
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"has no label ({value})")
        if SURROGATE.search(str(value)):
            raise ValueError("holds half of a surrogate pair")
        name = label_text(value)
        return self.named(name), {name}

    def named(self, name: str) -> str:
        """Return the label under its new name."""
        return self.data.labels.get(name, name)

    def names(self, label: str) -> list[str]:
        """Return the label itself."""
        return [label]

    def order(self, labels: Iterable[str], where: str) -> list[str]:
        """Return the labels by number or letter. Raises InputError for fewer than two."""
        ordered = label_order(labels)
        if len(ordered) < 2:
            found = f"only the label {ordered[0]!r}" if ordered else "no label"
            raise InputError(f"data.source: {where} has {found}; a classifier needs two")
        return ordered

    def column(self, spelled: Sequence[str], labels: Sequence[str]) -> "pa.Array":
        """Return the labels' numbers, int64; -1 for an unknown label."""
        import pyarrow as pa

        number = {label: place for place, label in enumerate(labels)}
        return pa.array([number.get(label, -1) for label in spelled], self.column_type(labels))

    def column_type(self, labels: Sequence[str]) -> "pa.DataType":
        """Return int64."""
        import pyarrow as pa

        del labels
        return pa.int64()

    def written(self, label: str) -> Any:
        """Return the label."""
        return label

    def target(self, labels: list[str], gold: Gold) -> Target:
        """Return the labels."""
        del gold
        return OneLabel(labels=labels)

    def draw(self, rows: LabelledRows, share: float, seed: int, where: str) -> Mask:
        """Draw rows with scikit-learn's train_test_split.

        Raises InputError for a label with a single row.
        """
        from sklearn.model_selection import train_test_split

        require_two_rows(rows, where)
        places = np.arange(len(rows))
        try:
            _, drawn = train_test_split(places, test_size=share, random_state=seed, stratify=rows.label_ids)
        except ValueError as error:
            raise cannot_split(len(rows), share, where, error) from error
        chosen = np.zeros(len(rows), dtype=np.bool_)
        chosen[drawn] = True
        return chosen

    def draw_among(self, rows: LabelledRows, among: Mask, share: float, seed: int) -> Mask:
        """Draw a share of each label's rows, where a label may have a single row."""
        labels = rows.label_ids
        places = {int(label): np.flatnonzero(among & (labels == label)) for label in np.unique(labels)}
        exact = {label: len(own) * share for label, own in places.items()}
        counts = {label: int(number) for label, number in exact.items()}
        # Rows that rounding down left over go to the labels with the largest fractions.
        left = round(int(among.sum()) * share) - sum(counts.values())
        for label in sorted(exact, key=lambda label: (counts[label] - exact[label], label))[: max(0, left)]:
            counts[label] += 1
        chosen = np.zeros(len(labels), dtype=np.bool_)
        generator = np.random.default_rng(seed)
        for label, own in places.items():
            chosen[generator.permutation(own)[: counts[label]]] = True
        return chosen

    def draw_gold(self, gold: Gold, share: float, seed: int) -> Mask:
        """Draw a share of each label's rows, rounded; at least one row stays."""
        generator = np.random.default_rng(seed)
        chosen = np.zeros(len(gold), dtype=np.bool_)
        for label in np.unique(gold):
            rows = generator.permutation(np.flatnonzero(gold == label))
            chosen[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
        return chosen

    def counts(self, gold: Gold, labels: int) -> Ints:
        """Count the rows of each label."""
        return np.bincount(gold, minlength=labels)

    def weights(self, gold: Gold, labels: int) -> list[float]:
        """Return the weight of each label as in scikit-learn's "balanced".

        A weight is rows / (labels x rows of the label). Over the rows the mean weight is 1.
        """
        rows = self.counts(gold, labels)
        return [float(len(gold) / (np.count_nonzero(rows) * own)) if own else 0.0 for own in rows]

    def loss(self, weights: list[float] | None = None, smoothing: float = 0.0) -> "Loss":
        """Return cross-entropy."""
        import torch

        from training.tasks.targets.losses import WeightedCrossEntropy, cross_entropy

        if weights is None and not smoothing:
            return cross_entropy
        return WeightedCrossEntropy(
            torch.tensor(weights, dtype=torch.float32) if weights is not None else None, smoothing
        )

    def validate(self, logits: npt.NDArray[np.float64], gold: Gold) -> dict[str, float]:
        """Return scikit-learn's metrics.

        Macro F1 is the mean over the labels that occur or were predicted.
        """
        from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef

        predicted = logits.argmax(-1)
        found = {
            "accuracy": (predicted == gold).mean(),
            "balanced_accuracy": balanced_accuracy_score(gold, predicted),
            "macro_f1": f1_score(gold, predicted, average="macro", zero_division=0),
            "micro_f1": f1_score(gold, predicted, average="micro", zero_division=0),
            "mcc": matthews_corrcoef(gold, predicted),
            "log_loss": self.log_loss(logits, gold),
        }
        return {name: float(value) for name, value in found.items()}

    def log_loss(self, logits: npt.NDArray[np.float64], gold: Gold) -> float:
        """Return the cross-entropy."""
        from scipy.special import log_softmax

        return float(-log_softmax(logits, axis=-1)[np.arange(len(gold)), gold].mean())


def require_two_rows(rows: LabelledRows, where: str) -> None:
    """Raise InputError for a label with a single row."""
    label, count = min(rows.label_counts.items(), key=lambda item: (item[1], item[0]))
    if count < 2:
        raise InputError(
            f"{where}: label {label!r} has a single row, and each part of the split needs one: "
            "add rows, merge it into another label with data.labels, or remove it"
        )
