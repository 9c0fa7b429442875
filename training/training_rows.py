"""The rows that training really sees: balanced over the labels, and augmented. Never for rows that measure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from training.augment import perturb
from training.loss import Loss, WeightedBinaryCrossEntropy, WeightedCrossEntropy, cross_entropy
from training.rows import Rows
from training.rows_settings import AugmentSettings, Balance, Cap
from training.stage import Summary
from training.train_settings import TrainSettings

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """`rows`, of which the last `perturbed` are perturbed copies of others, and what weighs them."""

    rows: Rows
    perturbed: int
    loss: Loss
    weights: list[float] | None

    def summary(self, given: Rows, labels: list[str]) -> Summary:
        """Counts of what was given and of what is trained on, and the labels' weights where they have some."""
        counts = {"given": given.labels, "trained": self.rows.labels}
        by_label = {
            name: dict(zip(labels, label_counts(numbers, len(labels)).tolist(), strict=True))
            for name, numbers in counts.items()
        }
        weights = dict(zip(labels, self.weights, strict=True)) if self.weights is not None else None
        return {"rows": len(self.rows), "perturbed": self.perturbed, "by_label": by_label, "weights": weights}


def training_rows(rows: Rows, settings: TrainSettings, labels: int, seed: int) -> TrainingRows:
    """What to train on in the place of `rows`: nothing but they, the settings and the seed decides.

    The first of each kept row is as it is. Where augmentation makes copies, what oversampling repeats is perturbed too.
    """
    chosen = balanced(rows.labels, settings.balance, seed)
    _, first = np.unique(chosen, return_index=True)
    repeats = np.ones(len(chosen), dtype=bool)
    repeats[first] = False
    copies = np.repeat(chosen, settings.augment.copies)
    perturbed = np.concatenate([chosen[repeats], copies]) if settings.augment.copies else copies
    as_they_are = chosen[~repeats] if settings.augment.copies else chosen
    weights = label_weights(rows.labels, labels) if settings.balance == "weights" else None
    loss: Loss = cross_entropy
    if weights is not None or settings.label_smoothing:
        tensor = torch.tensor(weights, dtype=torch.float32) if weights is not None else None
        weighted = WeightedBinaryCrossEntropy if rows.labels.ndim > 1 else WeightedCrossEntropy
        loss = weighted(tensor, settings.label_smoothing)
    return TrainingRows(
        rows=_with(rows.take(as_they_are), _perturbed(rows.take(perturbed), settings.augment, seed)),
        perturbed=len(perturbed),
        loss=loss,
        weights=weights,
    )


def balanced(labels: npt.NDArray[np.int64], balance: Balance, seed: int) -> Indices:
    """The numbers of the rows to train on, sorted.

    With `oversample` every label gets as many as the largest has: each of its rows equally often, the rest drawn.
    """
    if balance in ("none", "weights"):
        return np.arange(len(labels), dtype=np.int64)
    generator = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if isinstance(balance, Cap):
        return np.sort(np.concatenate([generator.permutation(of_label)[: balance.cap] for of_label in rows]))
    most = max(len(of_label) for of_label in rows)
    repeated = [np.resize(generator.permutation(of_label), most) for of_label in rows]
    return np.sort(np.concatenate(repeated))


def label_weights(labels: npt.NDArray[np.int64], count: int) -> list[float]:
    """All rows by labels x rows of the label, which is scikit-learn's "balanced": over the rows their mean is 1.

    Where rows have any number of labels, what a label's rows count for beside those without it: as much in all. A label
    that no row or every row has weighs 1.
    """
    rows = label_counts(labels, count)
    if labels.ndim > 1:
        return [float((len(labels) - own) / own) if 0 < own < len(labels) else 1.0 for own in rows]
    return [float(len(labels) / (np.count_nonzero(rows) * own)) if own else 0.0 for own in rows]


def label_counts(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """How many rows have each of `count` labels, int64 [labels]."""
    return labels.sum(axis=0) if labels.ndim > 1 else np.bincount(labels, minlength=count)


def _perturbed(rows: Rows, settings: AugmentSettings, seed: int) -> Rows:
    generator = np.random.default_rng([seed, len(rows)])
    texts = [perturb(text, settings, generator) for text in rows.texts]
    pairs = [perturb(text, settings, generator) for text in rows.pairs] if rows.pairs is not None else None
    return Rows(texts, pairs, rows.labels)


def _with(rows: Rows, more: Rows) -> Rows:
    pairs = rows.pairs + more.pairs if rows.pairs is not None and more.pairs is not None else None
    return Rows(rows.texts + more.texts, pairs, np.concatenate([rows.labels, more.labels]))
