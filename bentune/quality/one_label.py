"""Quality of classifiers with one label per row: accuracy, and tests of its difference."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bentune.bundle.arrays import Floats, Gold, Logits, Mask
from bentune.bundle.targets.target import Target
from bentune.bundle.verdict import CompareSettings, Difference
from bentune.quality.classification import Classification, PairedDifference, classification, paired
from bentune.quality.quality import LABEL, Contest, Metric, Paired, PairedTest, Quality, Report, Words, Wrong
from bentune.quality.statistics.bootstrap import Interval
from bentune.quality.statistics.calibration import Bin, ece, ece_difference, reliability
from bentune.quality.statistics.noninferiority import interval, mcnemar, p_value, paired_loss, rows_for, rows_needed

METHOD = (
    "non-inferiority by the score test of Tango (1998) for paired proportions, with a continuity correction; slices by "
    "McNemar's exact test"
)


class OneLabelQuality(Quality):
    """Quality of targets with one label per row."""

    report: ClassVar[type[Report]] = Classification
    paired_report: ClassVar[type[Paired]] = PairedDifference
    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "macro_f1",
        "mcc",
        "roc_auc",
        "mean_absolute_error",
        "log_loss",
        "brier",
        "calibration_error",
    )
    words: ClassVar = Words(
        metric="accuracy",
        changed="accuracy changed by",
        unit="points",
        one_unit="point",
        budget="accuracy",
        method=METHOD,
    )

    def measure(self, logits: Logits, gold: Gold, target: Target, **options: Any) -> Report:
        """Measure one model with `classification`."""
        return classification(logits, gold, target.labels, **options)

    def paired(
        self, before: Logits, after: Logits, gold: Gold, target: Target, *, resamples: int, confidence: float, seed: int
    ) -> Paired:
        """Measure the change from one model to the other with `paired`."""
        del target
        return paired(before, after, gold, resamples=resamples, confidence=confidence, seed=seed)

    def right(self, logits: Logits, gold: Gold, target: Target) -> Mask:
        """Return true where the answer equals the gold answer."""
        return ~target.differ(target.answers(logits), gold)

    def wrong(self, logits: Logits, gold: Gold, target: Target) -> Wrong:
        """Return the wrong answers, with their confidence as severity."""
        scores = exact(logits, target)
        confidence, gold_score = self._sureness(scores, logits, gold, target)
        return Wrong(~self.right(logits, gold, target), confidence, confidence, gold_score)

    def _sureness(self, scores: Floats, logits: Logits, gold: Gold, target: Target) -> tuple[Floats, Floats]:
        del logits, target
        return scores.max(axis=-1), scores[np.arange(len(gold)), gold]

    def score(self, logits: Logits, gold: Gold, target: Target) -> float:
        """Return the share of right answers."""
        return float(self.right(logits, gold, target).mean())

    def loss(self, reference: Logits, logits: Logits, gold: Gold, target: Target) -> Difference:
        """Return the lost points of accuracy, with Agresti and Min's interval."""
        right, before = self.right(logits, gold, target), self.right(reference, gold, target)
        value, low, high = paired_loss(int((before & ~right).sum()), int((right & ~before).sum()), len(gold))
        return Difference(value=value, low=low, high=high)

    def contest(self, candidate: Logits, served: Logits, gold: Gold, target: Target) -> Contest:
        """Return the counts of rows where exactly one of the two is right."""
        right, was_right = self.right(candidate, gold, target), self.right(served, gold, target)
        return Proportions(int((right & ~was_right).sum()), int((~right & was_right).sum()), len(gold))

    def rows_to_compare(self, changed: float, settings: CompareSettings) -> int | None:
        """Return the rows that the normal approximation asks for."""
        return rows_for(changed, margin=settings.margin / 100, alpha=settings.alpha, power=settings.power)

    def commonest(self, gold: Gold, target: Target) -> Any:
        """Return the number of the commonest label, int64."""
        return np.int64(np.bincount(gold, minlength=len(target.labels)).argmax())

    def compared(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, settings: CompareSettings
    ) -> list[Metric]:
        """Return accuracy, macro F1, log loss and the calibration error."""
        confidence = 1 - 2 * settings.alpha
        # The intervals of a single side are not used: the fewest possible resamples.
        sides = [self.measure(logits, gold, target, resamples=1).metrics for logits in (candidate, served)]
        differences = self.paired(
            served, candidate, gold, target, resamples=settings.resamples, confidence=confidence, seed=settings.seed
        ).metrics
        found = [
            Metric(
                name=self.words.metric if name == "accuracy" else name.replace("_", " ").replace("f1", "F1"),
                candidate=sides[0][name].value,
                served=sides[1][name].value,
                difference=Difference.model_validate(difference.model_dump()),
                higher_is_better=name in Classification.higher_is_better,
                share=name == "accuracy",
            )
            for name, difference in differences.items()
        ]
        bins = settings.calibration_bins
        tables = [self.reliability(logits, gold, target, bins) for logits in (candidate, served)]
        calibration = Metric(
            name="calibration error",
            candidate=ece(tables[0]),
            served=ece(tables[1]),
            difference=self.calibration_change(
                candidate,
                served,
                gold,
                target,
                bins=bins,
                resamples=settings.resamples,
                confidence=confidence,
                seed=settings.seed,
            ),
            higher_is_better=False,
        )
        return [*found, calibration]

    def calibration_change(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, **options: Any
    ) -> Difference:
        """Return the change of the expected calibration error by `ece_difference`."""
        return ece_difference(exact(candidate, target), exact(served, target), gold, **options)

    def reliability(self, logits: Logits, gold: Gold, target: Target, bins: int) -> list[Bin]:
        """Return the reliability table."""
        return reliability(exact(logits, target), gold, bins)

    def of_slice(self, report: Report, gold: Gold) -> dict[str, Interval]:
        """Return the metrics of a slice.

        Its macro F1 is the mean over the labels that have a row.
        """
        found = super().of_slice(report, gold)
        factor = len(report.labels) / max(1, self._labels_in(gold))
        one = found["macro_f1"]
        scaled = Interval(value=one.value * factor, low=one.low * factor, high=one.high * factor)
        return found | {"macro_f1": scaled}

    def _labels_in(self, gold: Gold) -> int:
        return len(np.unique(gold))

    def groups(self, gold: Gold, target: Target) -> Iterator[tuple[str, str, Mask]]:
        """Yield the rows of each label, without labels that have none."""
        for number, label in enumerate(target.labels):
            inside = gold == number
            if inside.any():
                yield LABEL, label, inside


@dataclass(frozen=True)
class Proportions:
    """Numbers of rows where only the candidate is right, and where only the served model is."""

    gained: int
    lost: int
    rows: int

    def difference(self, alpha: float) -> Difference:
        """Return the difference of accuracy with the limits of Tango's score test."""
        value, low, high = interval(self.gained, self.lost, self.rows, alpha)
        return Difference(value=value, low=low, high=high)

    def test(self) -> PairedTest:
        """Return McNemar's exact test."""
        return mcnemar(self.gained, self.lost, self.rows)

    def worse(self) -> float:
        """Return the exact probability of at least `lost` lost rows by chance."""
        from scipy.stats import binom

        return float(binom.sf(self.lost - 1, self.gained + self.lost, 0.5))

    def inferior(self, margin: float) -> float:
        """Return the p-value of Tango's score test at the margin."""
        return p_value(self.gained, self.lost, self.rows, margin)

    def rows_needed(self, *, margin: float, alpha: float, power: float) -> int:
        """Return the required number of rows by the normal approximation."""
        return rows_needed(self.gained, self.lost, self.rows, margin=margin, alpha=alpha, power=power)


def exact(logits: Logits, target: Target) -> Floats:
    """Return the scores, float64 [rows, labels]."""
    return np.asarray(target.scores(logits.astype(np.float64)), dtype=np.float64)
