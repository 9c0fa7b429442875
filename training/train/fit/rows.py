"""Training set after balancing and augmentation, which never touch the validation and test sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Ints
from training.pipeline.results import TrainedRows
from training.recipe.train import AugmentSettings, Balance, Cap, TrainSettings
from training.tasks.rows import Labels, Rows, StoredRows, of_size
from training.tasks.targets.losses import Loss
from training.tasks.targets.target import TrainingTarget
from training.tasks.text.augment import perturb


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Unchanged rows of `given`, numbered in `kept`, followed by a perturbed copy of each row in `copied`.

    `copied` are two arrays of sorted row numbers: repeats by oversampling, and additions by augmentation. `loss` is the
    loss to minimize, with the labels' `weights` if any. Texts are read and perturbed one part at a time.
    """

    given: StoredRows
    kept: Ints
    copied: tuple[Ints, Ints]
    augment: AugmentSettings
    seed: int
    loss: Loss
    weights: list[float] | None
    target: TrainingTarget

    def __len__(self) -> int:
        return len(self.kept) + self.perturbed

    @property
    def perturbed(self) -> int:
        """Number of perturbed copies, which come last."""
        return sum(map(len, self.copied))

    @property
    def labels(self) -> Labels:
        """Label of each row, in the target's form."""
        seen: Labels = self.given.labels[np.concatenate([self.kept, *self.copied])]
        return seen

    def parts(self) -> Iterator[Rows]:
        """Yield the rows in order, PART at a time; every call yields the same."""
        return of_size(chain(self.given.parts(self.kept), self._perturbed()))

    def take(self, chosen: Ints) -> Rows:
        """Load the rows of these numbers into memory, before perturbation."""
        return self.given.take(np.concatenate([self.kept, *self.copied])[chosen])

    def summary(self, labels: list[str]) -> TrainedRows:
        """Count rows by label before and after, and return the labels' weights if any."""
        given, trained = (
            dict(zip(labels, self.target.counts(gold, len(labels)).tolist(), strict=True))
            for gold in (self.given.labels, self.labels)
        )
        weights = dict(zip(labels, self.weights, strict=True)) if self.weights is not None else None
        by_label: dict[Literal["given", "trained"], dict[str, int]] = {"given": given, "trained": trained}
        return TrainedRows(rows=len(self), perturbed=self.perturbed, by_label=by_label, weights=weights)

    def _perturbed(self) -> Iterator[Rows]:
        of_texts = np.random.default_rng([self.seed, self.perturbed])
        # The draws for second texts follow the draws for all first texts, which this generator skips.
        of_pairs = np.random.default_rng([self.seed, self.perturbed])
        if self.given.paired:
            for part in self._copied():
                _texts(part.texts, self.augment, of_pairs)
        for part in self._copied():
            texts = _texts(part.texts, self.augment, of_texts)
            pairs = _texts(part.pairs, self.augment, of_pairs) if part.pairs is not None else None
            yield Rows(texts, pairs, part.labels)

    def _copied(self) -> Iterator[Rows]:
        return chain.from_iterable(self.given.parts(numbers) for numbers in self.copied if len(numbers))


def training_rows(
    rows: StoredRows, settings: TrainSettings, target: TrainingTarget, labels: int, seed: int
) -> TrainingRows:
    """Balance and augment `rows`; the result depends on the arguments alone.

    The first occurrence of each row is unchanged. Where augmentation makes copies, the repeats of oversampling are
    perturbed too.
    """
    chosen = balanced(rows.labels, settings.balance, seed)
    _, first = np.unique(chosen, return_index=True)
    repeats = np.ones(len(chosen), dtype=bool)
    repeats[first] = False
    copies = settings.augment.copies
    weights = target.weights(rows.labels, labels) if settings.balance == "weights" else None
    return TrainingRows(
        given=rows,
        kept=chosen[~repeats] if copies else chosen,
        copied=(chosen[repeats] if copies else chosen[:0], np.repeat(chosen, copies)),
        augment=settings.augment,
        seed=seed,
        loss=target.loss(weights, settings.label_smoothing),
        weights=weights,
        target=target,
    )


def balanced(labels: npt.NDArray[np.int64], balance: Balance, seed: int) -> Ints:
    """Return the sorted numbers of the rows to train on.

    With `oversample` every label gets the number of rows of the most frequent label. Its rows are repeated equally
    often, up to one; the seed chooses those with one more repeat.
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


def _texts(texts: list[str], settings: AugmentSettings, generator: np.random.Generator) -> list[str]:
    return [perturb(text, settings, generator) for text in texts]
