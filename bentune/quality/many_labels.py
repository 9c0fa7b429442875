"""Quality of multi-label classifiers: a row is right if its labels are exactly the gold ones."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from bentune.bundle.arrays import Floats, Gold, Logits, Mask
from bentune.bundle.targets.target import NO_LABEL, Target
from bentune.bundle.verdict import Difference
from bentune.quality import multi_label
from bentune.quality.one_label import METHOD, OneLabelQuality, exact
from bentune.quality.quality import LABEL, Paired, Report, Words
from bentune.quality.statistics.calibration import Bin, decision_ece_difference, decision_reliability

SUBSET_ACCURACY = "subset accuracy"


class ManyLabelsQuality(OneLabelQuality):
    """Quality of targets with any number of labels per row."""

    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "macro_f1",
        "micro_f1",
        "hamming_loss",
        "average_precision",
        "roc_auc",
        "log_loss",
        "brier",
        "calibration_error",
    )
    words: ClassVar = Words(
        metric=SUBSET_ACCURACY,
        changed="accuracy changed by",
        unit="points",
        one_unit="point",
        budget="accuracy",
        method=METHOD,
        note="a row is right if exactly its labels are predicted; accuracy here is subset accuracy",
    )

    def measure(self, logits: Logits, gold: Gold, target: Target, **options: Any) -> Report:
        """Measure one model with `multi_label.classification`."""
        return multi_label.classification(logits, gold, target.labels, **options)

    def paired(
        self, before: Logits, after: Logits, gold: Gold, target: Target, *, resamples: int, confidence: float, seed: int
    ) -> Paired:
        """Measure the change from one model to the other with `multi_label.paired`."""
        del target
        return multi_label.paired(before, after, gold, resamples=resamples, confidence=confidence, seed=seed)

    def _sureness(self, scores: Floats, logits: Logits, gold: Gold, target: Target) -> tuple[Floats, Floats]:
        """Return the confidence of each row's surest wrong decision, and its gold score.

        Where no decision is wrong, the surest of all is used.
        """
        decided = np.maximum(scores, 1 - scores)
        wrong = target.answers(logits) != gold
        sure = np.where(wrong.any(axis=1), np.where(wrong, decided, 0).max(axis=1), decided.max(axis=1))
        return sure, np.where(wrong.any(axis=1), 1 - sure, sure)

    def commonest(self, gold: Gold, target: Target) -> Any:
        """Return the commonest set of labels, int64 [labels]."""
        del target
        sets, counts = np.unique(gold, axis=0, return_counts=True)
        return sets[counts.argmax()]

    def calibration_change(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, **options: Any
    ) -> Difference:
        """Return the change of the ECE over all decisions."""
        return decision_ece_difference(exact(candidate, target), exact(served, target), gold, **options)

    def reliability(self, logits: Logits, gold: Gold, target: Target, bins: int) -> list[Bin]:
        """Return the reliability table of all decisions on labels."""
        return decision_reliability(exact(logits, target), gold, bins)

    def _labels_in(self, gold: Gold) -> int:
        return int(gold.any(axis=0).sum())

    def groups(self, gold: Gold, target: Target) -> Iterator[tuple[str, str, Mask]]:
        """Yield the rows with each label, and the rows without any."""
        has = gold.astype(np.bool_)
        without = np.asarray(~has.any(axis=1), dtype=np.bool_)
        for label, inside in (*zip(target.labels, has.T, strict=True), (NO_LABEL, without)):
            if inside.any():
                yield LABEL, label, inside
