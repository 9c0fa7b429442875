"""Quality of regressions: errors and rank correlation, and paired tests on the errors.

Intervals are percentile bootstrap over the rows. A candidate is judged by the ratio of its mean absolute error to the
served model's. The interval of that ratio is by the delta method. The test at a margin m is a one-sided paired t-test
of |candidate's error| - (1 + m) |served model's error| (a ratio test in the manner of Fieller 1954).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from bentune.bundle.arrays import Floats, Gold, Ints, Logits, Mask
from bentune.bundle.errors import InputError
from bentune.bundle.targets.number import FLIP, Number
from bentune.bundle.targets.target import Target
from bentune.bundle.verdict import CompareSettings, Difference
from bentune.quality.groups import quarters
from bentune.quality.quality import (
    Contest,
    Metric,
    Paired,
    PairedTest,
    Quality,
    Report,
    Words,
    Wrong,
)
from bentune.quality.statistics.bootstrap import Interval, check_settings, interval
from bentune.quality.statistics.calibration import Bin

CLOSE = 0.5
"""Largest error of a close answer, in standard deviations of the training rows' numbers."""
MOST_ROWS = 1_000_000_000
_CELLS_PER_BLOCK = 1 << 21


class NumberReport(Report):
    """A regression's metrics on labelled rows; errors are in the rows' own unit.

    `spearman` is the rank correlation with ties (0 where all are equal). `r2` is the explained share of the variance,
    below 0 where the mean would do better.
    """

    tiles: ClassVar = ("mean_absolute_error", "spearman")
    sliced: ClassVar = ("mean_absolute_error", "root_mean_squared_error", "spearman")
    hub: ClassVar = {"mean_absolute_error": "mae", "spearman": "spearmanr"}
    higher_is_better: ClassVar = frozenset({"spearman", "r2"})
    lower_is_better: ClassVar = frozenset({"mean_absolute_error", "root_mean_squared_error"})

    mean_absolute_error: Interval
    root_mean_squared_error: Interval
    spearman: Interval
    r2: Interval

    @property
    def metrics(self) -> dict[str, Interval]:
        """Metrics by name."""
        return {name: getattr(self, name) for name in METRICS}


class NumberChange(Paired):
    """After minus before on the same rows: better is below 0 for errors, above 0 for `spearman` and `r2`."""

    mean_absolute_error: Interval
    root_mean_squared_error: Interval
    spearman: Interval
    r2: Interval


class NumberQuality(Quality):
    """Quality of targets with one number per row."""

    report: ClassVar[type[Report]] = NumberReport
    paired_report: ClassVar[type[Paired]] = NumberChange
    metrics: ClassVar[tuple[str, ...]] = ("mean_absolute_error", "root_mean_squared_error", "spearman", "r2")
    words: ClassVar = Words(
        metric="mean absolute error",
        changed="the mean absolute error is lower by",
        unit="%",
        one_unit="%",
        budget="the mean absolute error",
        heading="Mean absolute error: reduction by the candidate, in % of the served model's",
        method="non-inferiority by a one-sided paired t-test on the ratio of mean absolute errors; slices by paired "
        "t-tests",
        alone="clearly closer, the other not",
    )

    def measure(self, logits: Logits, gold: Gold, target: Target, **options: Any) -> Report:
        """Measure one model.

        `logits` are float32 [rows, 1], `gold` float64 [rows]. `bins` is ignored.
        """
        options.pop("bins", None)
        settings = {"resamples": 1000, "confidence": 0.95, "seed": 0} | options
        check_settings(**settings)
        value, spread = _measured(_answers(logits, gold, target), gold, settings["resamples"], settings["seed"])
        found = {name: interval(value[name][0], spread[name], settings["confidence"]) for name in METRICS}
        return NumberReport(rows=len(gold), labels=target.labels, **settings, **found)

    def paired(
        self, before: Logits, after: Logits, gold: Gold, target: Target, *, resamples: int, confidence: float, seed: int
    ) -> Paired:
        """Measure the change; each resample draws the same rows for both."""
        check_settings(resamples, confidence, seed)
        (old, olds), (new, news) = (
            _measured(_answers(logits, gold, target), gold, resamples, seed) for logits in (before, after)
        )
        return NumberChange(
            **{name: interval(new[name][0] - old[name][0], news[name] - olds[name], confidence) for name in METRICS}
        )

    def right(self, logits: Logits, gold: Gold, target: Target) -> Mask:
        """Return true where the error is within CLOSE standard deviations."""
        return np.asarray(_errors(logits, gold, target) <= CLOSE * _scale(target))

    def wrong(self, logits: Logits, gold: Gold, target: Target) -> Wrong:
        """Return the answers that are not close, with their error as severity."""
        errors = _errors(logits, gold, target)
        return Wrong(errors > CLOSE * _scale(target), errors, None, None)

    def score(self, logits: Logits, gold: Gold, target: Target) -> float:
        """Return the explained share of the variance."""
        return float(METRICS["r2"](_answers(logits, gold, target), gold, np.ones((1, len(gold))))[0])

    def loss(self, reference: Logits, logits: Logits, gold: Gold, target: Target) -> Difference:
        """Return the growth of the mean absolute error in percent."""
        lost = Errors(_errors(logits, gold, target), _errors(reference, gold, target), _scale(target)).difference(0.025)
        return Difference(value=-100 * lost.value, low=-100 * lost.high, high=-100 * lost.low)

    def contest(self, candidate: Logits, served: Logits, gold: Gold, target: Target) -> Contest:
        """Return the absolute errors of both models."""
        return Errors(_errors(candidate, gold, target), _errors(served, gold, target), _scale(target))

    def commonest(self, gold: Gold, target: Target) -> Any:
        """Return the median, which has the least mean absolute error, float64."""
        del target
        return np.median(gold)

    def compared(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, settings: CompareSettings
    ) -> list[Metric]:
        """Return the four metrics."""
        confidence = 1 - 2 * settings.alpha
        new, old = (self.measure(logits, gold, target, resamples=1).metrics for logits in (candidate, served))
        changes = self.paired(
            served, candidate, gold, target, resamples=settings.resamples, confidence=confidence, seed=settings.seed
        ).metrics
        return [
            Metric(
                name=name.replace("_", " "),
                candidate=new[name].value,
                served=old[name].value,
                difference=Difference.model_validate(change.model_dump()),
                higher_is_better=name in NumberReport.higher_is_better,
            )
            for name, change in changes.items()
        ]

    def reliability(self, logits: Logits, gold: Gold, target: Target, bins: int) -> list[Bin]:
        """Return an empty list: a number has no probability."""
        del logits, gold, target, bins
        return []

    def calibration_change(
        self, candidate: Logits, served: Logits, gold: Gold, target: Target, **options: Any
    ) -> Difference:
        """Raise InputError: a number has no probability."""
        del candidate, served, gold, target, options
        raise InputError("a number has no probability, and so no calibration")

    def groups(self, gold: Gold, target: Target) -> Iterator[tuple[str, str, Mask]]:
        """Yield quarters of the rows by their number."""
        yield from quarters(target.labels[0], gold)


@dataclass(frozen=True)
class Errors:
    """Absolute errors of the candidate and of the served model on the same rows, float64 [rows], in the rows' unit."""

    candidate: Floats
    served: Floats
    scale: float

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.candidate)

    @property
    def gained(self) -> int:
        """Number of rows where the candidate is clearly closer."""
        return int((self.served - self.candidate > FLIP * self.scale).sum())

    @property
    def lost(self) -> int:
        """Number of rows where the served model is clearly closer."""
        return int((self.candidate - self.served > FLIP * self.scale).sum())

    def difference(self, alpha: float) -> Difference:
        """Return the reduction of the mean absolute error by the candidate.

        It is a share of the served model's error.
        """
        value, error = self._saved()
        reach = NormalDist().inv_cdf(1 - alpha) * error
        return Difference(value=value, low=max(value - reach, -1e6), high=min(value + reach, 1.0))

    def test(self) -> PairedTest:
        """Return the paired t-test."""
        down = self._p_value(self.candidate - self.served)
        return PairedTest(name="paired t-test p", gained=self.gained, lost=self.lost, p_value=2 * min(down, 1 - down))

    def worse(self) -> float:
        """Return the one-sided paired t-test's p-value for larger errors of the candidate."""
        return 1 - self._p_value(self.candidate - self.served)

    def inferior(self, margin: float) -> float:
        """Return the p-value of the one-sided paired t-test at the margin."""
        return self._p_value(self.candidate - (1 + margin) * self.served)

    def rows_needed(self, *, margin: float, alpha: float, power: float) -> int:
        """Return the required number of rows by the normal approximation."""
        _, error = self._saved()
        normal = NormalDist()
        reach = (normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)) * error * self.rows**0.5
        return int(max(1, min(MOST_ROWS, ceil((reach / margin) ** 2))))

    def _saved(self) -> tuple[float, float]:
        """Return the saved share of the error, and its standard error by the delta method."""
        before = float(self.served.mean())
        if before == 0:
            return (0.0, 0.0) if not self.candidate.any() else (-1e6, 0.0)
        ratio = float(self.candidate.mean()) / before
        spread = np.std(self.candidate - ratio * self.served, ddof=1) if self.rows > 1 else np.inf
        return 1 - ratio, float(spread) / (before * self.rows**0.5)

    @staticmethod
    def _p_value(differences: Floats) -> float:
        """Return the probability of this mean or a lower one if the true mean is 0."""
        from scipy.stats import t

        rows, mean = len(differences), float(differences.mean())
        if rows < 2:
            return 0.5
        error = float(np.std(differences, ddof=1)) / rows**0.5
        if error == 0:
            return 0.5 if mean == 0 else float(mean > 0)
        return float(t.cdf(mean / error, rows - 1))


def _scale(target: Target) -> float:
    if not isinstance(target, Number):
        raise TypeError(f"{target.kind} is no number")
    return target.scale


def _answers(logits: Logits, gold: Gold, target: Target) -> Floats:
    if logits.shape != (len(gold), 1) or not len(gold):
        raise InputError(f"the outputs are {logits.shape}, and there are {len(gold)} rows: one number each is needed")
    found = np.asarray(target.answers(logits.astype(np.float64)), dtype=np.float64)
    if not (np.isfinite(found).all() and np.isfinite(gold).all()):
        raise InputError("the outputs or the rows hold a number that is not finite")
    return found


def _errors(logits: Logits, gold: Gold, target: Target) -> Floats:
    return np.abs(_answers(logits, gold, target) - gold)


def _measured(found: Floats, gold: Floats, resamples: int, seed: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return each metric of all rows, [1], and of every resample, float64 [resamples]."""
    rows, generator = len(gold), np.random.default_rng(seed)
    block = max(1, _CELLS_PER_BLOCK // rows)
    parts: list[dict[str, Floats]] = []
    for start in range(0, resamples, block):
        times = generator.multinomial(rows, np.full(rows, 1 / rows), size=min(block, resamples - start))
        parts.append({name: metric(found, gold, times.astype(np.float64)) for name, metric in METRICS.items()})
    spread = {name: np.concatenate([part[name] for part in parts]) for name in METRICS}
    return {name: metric(found, gold, np.ones((1, rows))) for name, metric in METRICS.items()}, spread


def _mean_absolute(found: Floats, gold: Floats, times: Floats) -> Floats:
    return np.asarray(times @ np.abs(found - gold) / len(gold))


def _root_mean_squared(found: Floats, gold: Floats, times: Floats) -> Floats:
    return np.sqrt(times @ (found - gold) ** 2 / len(gold))


def _r2(found: Floats, gold: Floats, times: Floats) -> Floats:
    rows = len(gold)
    mean = times @ gold / rows
    spread = times @ gold**2 / rows - mean**2
    residual = times @ (found - gold) ** 2 / rows
    return np.asarray(1 - np.divide(residual, spread, out=np.ones_like(residual), where=spread > 1e-12))


def _spearman(found: Floats, gold: Floats, times: Floats) -> Floats:
    """Return Pearson's correlation of average ranks; 0 where a side has one value."""
    one, other = _ranks(found, times), _ranks(gold, times)
    rows = len(gold)
    middle = (rows + 1) / 2
    one, other = one - middle, other - middle
    together = (times * one * other).sum(axis=1)
    spread = np.sqrt((times * one**2).sum(axis=1) * (times * other**2).sum(axis=1))
    return np.asarray(np.divide(together, spread, out=np.zeros_like(together), where=spread > 1e-12))


def _ranks(values: Floats, times: Floats) -> Floats:
    """Return the average rank of each row, float64 [samples, rows].

    `times` counts each row in each sample.
    """
    _, place = np.unique(values, return_inverse=True)
    order: Ints = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    counts = np.add.reduceat(times[:, order], starts, axis=1)
    ends = np.cumsum(counts, axis=1)
    return np.asarray((ends - counts + (counts + 1) / 2)[:, place])


METRICS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "mean_absolute_error": _mean_absolute,
    "root_mean_squared_error": _root_mean_squared,
    "spearman": _spearman,
    "r2": _r2,
}
