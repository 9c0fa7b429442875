"""Metrics of a multi-label classifier, in the types of `bentune.quality.classification`.

A label is predicted where its probability, the sigmoid of its logit, is above THRESHOLD. `accuracy` is the share of
rows whose predicted labels are exactly the gold ones (subset accuracy). A decision is one label of one row:
`hamming_loss` is the share of wrong decisions, and `log_loss`, `brier` and the calibration error are means over
decisions. The confidence of a decision is the probability of its outcome. `average_precision` and `roc_auc` are means
over the labels for which they are defined. Point values are scikit-learn's, with zero_division=0. Intervals are
percentile bootstrap over the rows, except for the areas under the ROC curve: see `bentune.quality.statistics.ranking`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from bentune.bundle.arrays import Floats, Ints, Logits, Mask
from bentune.bundle.errors import InputError
from bentune.bundle.targets.many_labels import THRESHOLD, sigmoid
from bentune.quality.classification import BINS, Classification, ClassMetrics, PairedDifference, check_labels
from bentune.quality.statistics.bootstrap import Interval, check_settings, interval
from bentune.quality.statistics.calibration import Calibration, decision_gaps, decision_reliability
from bentune.quality.statistics.ranking import areas

_CELLS_PER_BLOCK = 1 << 21
SUBSET, HAMMING, LOG_LOSS, BRIER = range(4)


def classification(
    logits: Logits,
    gold: Ints,
    labels: Sequence[str],
    *,
    bins: int = BINS,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Classification:
    """Compute the metrics of one classifier with their intervals.

    `logits` are float32 [rows, labels], `gold` int64 [rows, labels], 1 for each label of a row. The settings are those
    of `bentune.quality.classification.classification`. Memory grows with rows times labels. Raises InputError when
    there are no rows, shapes do not fit together, a logit is not finite, or for settings out of range.
    """
    check_settings(resamples, confidence, seed)
    rows = _Rows.of(logits, gold, "logits")
    check_labels(labels, logits)
    measure = _Measure(rows, bins)
    value, spread = measure.whole(), measure.resampled(resamples, seed)
    area, area_of = areas(rows.scores, rows.gold, confidence)
    has = rows.gold.sum(axis=0) > 0

    def overall(metric: Callable[[_Metrics], Floats]) -> Interval:
        return interval(metric(value)[0], metric(spread), confidence)

    def of_label(index: int) -> ClassMetrics:
        def one(metric: Callable[[_Metrics], Floats]) -> Interval:
            return interval(metric(value)[0, index], metric(spread)[:, index], confidence)

        return ClassMetrics(
            precision=one(lambda metrics: metrics.precision),
            recall=one(lambda metrics: metrics.recall),
            f1=one(lambda metrics: metrics.f1),
            roc_auc=area_of[index],
            support=int(rows.gold[:, index].sum()),
            average_precision=one(lambda metrics: metrics.average_precision) if has[index] else None,
            calibration_error=one(lambda metrics: metrics.calibration_errors),
        )

    return Classification(
        rows=len(gold),
        accuracy=overall(lambda metrics: metrics.means[:, SUBSET]),
        macro_f1=overall(lambda metrics: metrics.macro_f1),
        micro_f1=overall(lambda metrics: metrics.micro_f1),
        mcc=None,
        log_loss=overall(lambda metrics: metrics.means[:, LOG_LOSS]),
        brier=overall(lambda metrics: metrics.means[:, BRIER]),
        roc_auc=area,
        mean_absolute_error=None,
        hamming_loss=overall(lambda metrics: metrics.means[:, HAMMING]),
        average_precision=overall(lambda metrics: metrics.macro_precision) if has.any() else None,
        calibration=Calibration(
            error=overall(lambda metrics: metrics.calibration_error),
            bins=decision_reliability(rows.scores, gold, bins),
        ),
        per_class={label: of_label(index) for index, label in enumerate(labels)},
        confusion=[],
        labels=list(labels),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def paired(
    before_logits: Logits,
    after_logits: Logits,
    gold: Ints,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compute the metrics of one classifier minus those of another on the same rows.

    Each resample draws the same rows for both. Shapes and errors are those of `classification`.
    """
    check_settings(resamples, confidence, seed)
    sides = [_Rows.of(before_logits, gold, "logits before"), _Rows.of(after_logits, gold, "logits after")]
    measures = [_Measure(rows, bins=0) for rows in sides]
    value_before, value_after = (measure.whole() for measure in measures)
    before, after = (measure.resampled(resamples, seed) for measure in measures)

    def difference(metric: Callable[[_Metrics], Floats]) -> Interval:
        value = metric(value_after) - metric(value_before)
        return interval(value[0], metric(after) - metric(before), confidence)

    return PairedDifference(
        accuracy=difference(lambda metrics: metrics.means[:, SUBSET]),
        macro_f1=difference(lambda metrics: metrics.macro_f1),
        log_loss=difference(lambda metrics: metrics.means[:, LOG_LOSS]),
    )


@dataclass(frozen=True)
class _Rows:
    """Logits, probabilities and gold labels of one classifier; all [rows, labels]."""

    logits: Floats
    scores: Floats
    gold: Mask

    @classmethod
    def of(cls, logits: Logits, gold: Ints, name: str) -> "_Rows":
        if logits.ndim != 2 or logits.shape[1] < 2 or gold.shape != logits.shape or not len(logits):
            raise InputError(f"the {name} {logits.shape} and the gold labels {gold.shape} are not [rows, labels] alike")
        if not np.isfinite(logits).all():
            raise InputError(f"the {name} are not finite")
        if not np.isin(gold, (0, 1)).all():
            raise InputError("the gold labels must be 0 or 1 for each row and label")
        exact = logits.astype(np.float64)
        scores = np.asarray(sigmoid(exact), dtype=np.float64)
        return cls(exact, scores, gold.astype(np.bool_))


@dataclass(frozen=True)
class _Metrics:
    """Metrics of each sample, float64 [samples].

    `means` are [samples, 4], the last five [samples, labels].
    """

    macro_f1: Floats
    micro_f1: Floats
    macro_precision: Floats
    calibration_error: Floats
    means: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    average_precision: Floats
    calibration_errors: Floats


class _Measure:
    """Metrics of samples of one classifier's rows.

    With `bins` of 0 there is no calibration and no average precision.
    """

    def __init__(self, rows: _Rows, bins: int) -> None:
        self.rows, self.bins = rows, bins
        self.predicted = rows.scores > THRESHOLD
        wrong = (self.predicted != rows.gold).mean(axis=1)
        # Clipped like scikit-learn's float64 probabilities: the loss of a decision is at most 36.04 nats.
        losses = np.minimum(np.logaddexp(0, np.where(rows.gold, -rows.logits, rows.logits)), -np.log(2.0**-52))
        brier = ((rows.scores - rows.gold) ** 2).mean(axis=1)
        amounts = [wrong == 0, wrong, losses.mean(axis=1), brier]
        self.amounts = np.column_stack(amounts).astype(np.float64)
        self.with_gold = rows.gold.any(axis=0).mean()

    def whole(self) -> _Metrics:
        """Compute the metrics of all rows."""
        return self._of(np.ones((1, len(self.rows.gold))))

    def resampled(self, resamples: int, seed: int) -> _Metrics:
        """Compute the metrics of `resamples` draws with replacement.

        Equal seeds draw equal rows.
        """
        rows = len(self.rows.gold)
        generator = np.random.default_rng(seed)
        block = max(1, _CELLS_PER_BLOCK // rows)
        found = []
        for start in range(0, resamples, block):
            times = generator.multinomial(rows, np.full(rows, 1 / rows), size=min(block, resamples - start))
            found.append(self._of(times.astype(np.float64)))
        return _Metrics(*(np.concatenate([getattr(one, part.name) for one in found]) for part in fields(_Metrics)))

    def _of(self, times: Floats) -> _Metrics:
        """Compute the metrics of samples.

        `times`, float64 [samples, rows], counts each row in each sample.
        """
        gold, rows = self.rows.gold, len(self.rows.gold)
        hits, said, there = (
            times @ marks.astype(np.float64) for marks in (gold & self.predicted, self.predicted, gold)
        )
        f1 = _share(2 * hits, said + there)
        # As in `classification`: the 0 of a label without a drawn row would lower the interval, whatever the model.
        drawn = there > 0
        of_drawn = drawn.sum(axis=1).astype(np.float64)
        ranked, errors = np.zeros_like(f1), np.zeros_like(f1)
        gaps = np.zeros((len(times), self.bins))
        for label, (precision, own_gaps) in enumerate(self._by_label(times)):
            ranked[:, label] = precision
            errors[:, label] = np.abs(own_gaps).sum(axis=1) / rows
            gaps += own_gaps
        return _Metrics(
            macro_f1=_share((f1 * drawn).sum(axis=1), of_drawn) * self.with_gold,
            micro_f1=_share(2 * hits.sum(axis=1), said.sum(axis=1) + there.sum(axis=1)),
            macro_precision=_share((ranked * drawn).sum(axis=1), of_drawn),
            calibration_error=np.abs(gaps).sum(axis=1) / gold.size,
            means=times @ self.amounts / rows,
            precision=_share(hits, said),
            recall=_share(hits, there),
            f1=f1,
            average_precision=ranked,
            calibration_errors=errors,
        )

    def _by_label(self, times: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Yield each label's average precision and sums of calibration gaps.

        The shapes are [samples] and [samples, bins].
        """
        for label in range(self.rows.gold.shape[1] if self.bins else 0):
            scores, gold = self.rows.scores[:, label], self.rows.gold[:, label]
            yield _average_precision(scores, gold, times), times @ decision_gaps(scores, gold, self.bins)


def _average_precision(scores: Floats, gold: Mask, times: Floats) -> Floats:
    """Compute the stepwise area under the precision-recall curve, float64 [samples].

    It is 0 where no row has the label.
    """
    order = np.argsort(-scores, kind="stable")
    # Rows of equal score lie on the same side of every threshold.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    sorted_times = times[:, order]
    right = np.cumsum(sorted_times * gold[order], axis=1)[:, ends]
    predicted = np.cumsum(sorted_times, axis=1)[:, ends]
    steps = np.diff(right, axis=1, prepend=0)
    return _share((steps * _share(right, predicted)).sum(axis=1), right[:, -1])


def _share(over: Floats, under: Floats) -> Floats:
    """Divide, with 0 where the denominator is 0."""
    return np.asarray(np.divide(over, under, out=np.zeros_like(over), where=under > 0))
