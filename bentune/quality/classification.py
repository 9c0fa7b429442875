"""Metrics of a classifier from its logits, with intervals over the rows.

Point values are scikit-learn's, with zero_division=0, over every label of the label map. The intervals are percentile
bootstrap, except for the areas under the ROC curve: see `bentune.quality.statistics.ranking`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Floats, Ints
from bentune.bundle.errors import InputError
from bentune.bundle.files import Frozen
from bentune.bundle.targets.one_label import softmax
from bentune.quality.quality import Paired, Report
from bentune.quality.statistics.bootstrap import (
    Counts,
    Interval,
    Scored,
    check_settings,
    count_whole,
    interval,
    resample,
)
from bentune.quality.statistics.calibration import Calibration, gap_of_each, reliability
from bentune.quality.statistics.ranking import of_classes

BINS = 10
MOST_CONFUSED = 100
"""Most labels for which the confusion matrix is kept; its size is quadratic in their number."""


class ClassMetrics(Frozen):
    """Metrics of one label.

    `support` is the number of its gold rows; intervals on few rows are unreliable. `roc_auc` compares the label with
    all others; it is None where every row or no row has the label. The last two exist for multi-label classifiers only:
    see `bentune.quality.multi_label`.
    """

    precision: Interval
    recall: Interval
    f1: Interval
    roc_auc: Interval | None
    support: int
    average_precision: Interval | None = None
    calibration_error: Interval | None = None


class Classification(Report):
    """A classifier's metrics on labelled rows.

    `micro_f1` equals the accuracy, because each row has one label. `mcc` is Matthews' correlation coefficient.
    `log_loss` is in nats per row; `brier` is the mean squared distance of the probabilities to the truth, summed over
    the labels, halved where there are two. `roc_auc` is one label against the rest, averaged over the labels, and None
    where it is undefined. `mean_absolute_error` is the distance in ranks between gold and predicted label, None for
    labels without an order. `confusion` counts rows: one list per gold label with one number per predicted label, both
    in the order of `labels`, as are the keys of `per_class`; it is empty beyond MOST_CONFUSED labels. A multi-label
    classifier has `hamming_loss` and `average_precision`, but no `mcc` and no `confusion`;
    `bentune.quality.multi_label` defines its metrics.
    """

    shares: ClassVar = frozenset({"accuracy", "macro_f1", "micro_f1", "calibration_error"})
    tiles: ClassVar = ("accuracy", "macro_f1")
    sliced: ClassVar = ("accuracy", "macro_f1", "log_loss", "mean_absolute_error", "calibration_error")
    hub: ClassVar = {"accuracy": "accuracy", "macro_f1": "f1"}
    higher_is_better: ClassVar = frozenset({"accuracy", "macro_f1", "micro_f1", "average_precision", "mcc", "roc_auc"})
    lower_is_better: ClassVar = frozenset(
        {"hamming_loss", "mean_absolute_error", "log_loss", "brier", "calibration_error"}
    )

    accuracy: Interval
    macro_f1: Interval
    micro_f1: Interval
    mcc: Interval | None
    log_loss: Interval
    brier: Interval
    roc_auc: Interval | None
    mean_absolute_error: Interval | None
    hamming_loss: Interval | None = None
    average_precision: Interval | None = None
    calibration: Calibration
    per_class: dict[str, ClassMetrics]
    confusion: list[list[int]]

    @property
    def metrics(self) -> dict[str, Interval]:
        """Metrics that are defined for these rows."""
        found = {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "micro_f1": self.micro_f1 if self.hamming_loss else None,
            "hamming_loss": self.hamming_loss,
            "average_precision": self.average_precision,
            "mcc": self.mcc,
            "roc_auc": self.roc_auc,
            "mean_absolute_error": self.mean_absolute_error,
            "log_loss": self.log_loss,
            "brier": self.brier,
            "calibration_error": self.calibration.error,
        }
        return {name: value for name, value in found.items() if value is not None}


class PairedDifference(Paired):
    """Metrics after minus before on the same rows.

    Better is above 0 for accuracy and macro F1, below 0 for log loss.
    """

    accuracy: Interval
    macro_f1: Interval
    log_loss: Interval


def classification(
    logits: npt.NDArray[np.float32],
    gold: Ints,
    labels: Sequence[str],
    *,
    ranks: Ints | None = None,
    bins: int = BINS,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Classification:
    """Compute the metrics of one classifier with their intervals.

    `logits` is float32 [rows, labels], `gold` int64 [rows] with indices into `labels`. `ranks`, int64 [labels], is the
    rank of each label where labels have an order. `bins` is the number of bins of the calibration. `confidence` is the
    share of the resamples inside each interval. The bootstrap needs about 30 MB, plus 100 bytes for each resample and
    label, independent of the rows. Equal arguments give equal results. Raises InputError when there are no rows, when
    shapes, label indices or types do not fit together, when a logit is not finite, or for settings out of range.
    """
    check_settings(resamples, confidence, seed)
    _check_rows(logits, gold, "logits")
    check_labels(labels, logits)
    if ranks is not None and ranks.shape != (len(labels),):
        raise InputError(f"{len(labels)} labels are named, but the shape of their ranks is {ranks.shape}")

    scores = _probabilities(logits)
    model = _score(logits, scores, gold.astype(np.int64), ranks, bins)
    confusion = np.bincount(model.gold * len(labels) + model.predicted, minlength=len(labels) ** 2)
    whole = count_whole(model)
    (drawn,) = resample([model], resamples, seed)
    value, spread = _metrics(whole, whole), _metrics(drawn, whole)
    area, area_of = of_classes(scores, model.gold, confidence)

    def overall(metric: Callable[[_Metrics], Floats]) -> Interval:
        return interval(metric(value)[0], metric(spread), confidence)

    def of_class(index: int) -> ClassMetrics:
        def one(point: Floats, samples: Floats) -> Interval:
            return interval(point[0, index], samples[:, index], confidence)

        return ClassMetrics(
            precision=one(value.precision, spread.precision),
            recall=one(value.recall, spread.recall),
            f1=one(value.f1, spread.f1),
            roc_auc=area_of[index],
            support=int(whole.support[0, index]),
        )

    accuracy = overall(lambda metrics: metrics.accuracy)
    return Classification(
        rows=len(gold),
        accuracy=accuracy,
        macro_f1=overall(lambda metrics: metrics.macro_f1),
        micro_f1=accuracy,
        mcc=overall(lambda metrics: metrics.mcc),
        log_loss=overall(lambda metrics: metrics.means[:, 0]),
        brier=overall(lambda metrics: metrics.means[:, 1]),
        roc_auc=area,
        mean_absolute_error=overall(lambda metrics: metrics.means[:, 2]) if ranks is not None else None,
        calibration=Calibration(
            error=overall(lambda metrics: metrics.calibration_error), bins=reliability(scores, model.gold, bins)
        ),
        per_class={label: of_class(index) for index, label in enumerate(labels)},
        confusion=confusion.reshape(len(labels), len(labels)).tolist() if len(labels) <= MOST_CONFUSED else [],
        labels=list(labels),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def paired(
    before_logits: npt.NDArray[np.float32],
    after_logits: npt.NDArray[np.float32],
    gold: Ints,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compute the metrics of one classifier minus those of another on the same rows.

    Both `logits` are float32 [rows, labels], `gold` is int64 [rows]. Each resample draws the same rows for both, so
    that the difficulty of a row cancels in the difference. Raises InputError like `classification`, and when the two
    differ in shape.
    """
    check_settings(resamples, confidence, seed)
    _check_rows(before_logits, gold, "logits before")
    _check_rows(after_logits, gold, "logits after")
    if before_logits.shape != after_logits.shape:
        raise InputError(f"the logits before are {before_logits.shape}, but the logits after are {after_logits.shape}")

    models = [_losses(logits, gold.astype(np.int64)) for logits in (before_logits, after_logits)]
    wholes = [count_whole(model) for model in models]
    draws = resample(models, resamples, seed)
    value_before, value_after = (_metrics(whole, whole) for whole in wholes)
    before, after = (_metrics(drawn, whole) for drawn, whole in zip(draws, wholes, strict=True))

    def difference(metric: Callable[[_Metrics], Floats]) -> Interval:
        value = metric(value_after) - metric(value_before)
        return interval(value[0], metric(after) - metric(before), confidence)

    return PairedDifference(
        accuracy=difference(lambda metrics: metrics.accuracy),
        macro_f1=difference(lambda metrics: metrics.macro_f1),
        log_loss=difference(lambda metrics: metrics.means[:, 0]),
    )


def check_labels(labels: Sequence[str], logits: npt.NDArray[np.float32]) -> None:
    """Raise InputError unless the labels name the columns of the logits, each once."""
    if len(labels) != logits.shape[1]:
        raise InputError(f"{len(labels)} labels are named, but the logits have {logits.shape[1]} columns")
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise InputError(f"each label must be named once, but these are repeated: {', '.join(repeated)}")


def _check_rows(logits: npt.NDArray[np.float32], gold: Ints, name: str) -> None:
    """Raise InputError unless metrics can be computed.

    `name` is the name of the logits in the message.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(f"the {name} must be [rows, labels] with at least 2 labels, but their shape is {logits.shape}")
    if gold.shape != logits.shape[:1]:
        raise InputError(f"the {name} have {len(logits)} rows, but the shape of the gold labels is {gold.shape}")
    if len(gold) == 0:
        raise InputError("there are no rows to measure")
    if not np.issubdtype(logits.dtype, np.floating):
        raise InputError(f"the {name} must be floating point, but are {logits.dtype}")
    if not np.issubdtype(gold.dtype, np.integer):
        raise InputError(f"the gold labels must be integers, but are {gold.dtype}")
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise InputError(f"the {name} are not finite in {len(bad)} of {len(logits)} rows, first in row {bad[0]}")
    bad = np.flatnonzero((gold < 0) | (gold >= logits.shape[1]))
    if len(bad):
        raise InputError(
            f"gold label {gold[bad[0]]} of row {bad[0]} is not an index into the {logits.shape[1]} labels of the {name}"
        )


def _probabilities(logits: npt.NDArray[np.float32]) -> Floats:
    """Return the softmax, float64 [rows, labels]."""
    return softmax(logits.astype(np.float64)).astype(np.float64, copy=False)


def _losses(logits: npt.NDArray[np.float32], gold: Ints) -> Scored:
    """Return the inputs of accuracy, F1 and log loss.

    The only amount is the loss in nats.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_likelihood = shifted[np.arange(len(gold)), gold] - np.log(np.exp(shifted).sum(axis=1))
    # Clipped like scikit-learn's float64 probabilities: the loss of a row is at most 36.04 nats.
    epsilon = np.finfo(np.float64).eps
    losses = -np.clip(log_likelihood, np.log(epsilon), np.log1p(-epsilon))
    nothing = np.zeros(0)
    return Scored(
        gold=gold,
        predicted=logits.argmax(axis=1),
        labels=logits.shape[1],
        amounts=losses[:, None],
        gaps=nothing,
        place=nothing.astype(np.int64),
        bins=0,
    )


def _score(logits: npt.NDArray[np.float32], scores: Floats, gold: Ints, ranks: Ints | None, bins: int) -> Scored:
    """Return the inputs of all metrics.

    The amounts are log loss, Brier score and, for ranked labels, the distance in ranks.
    """
    plain = _losses(logits, gold)
    truth = np.arange(plain.labels) == gold[:, None]
    brier = ((scores - truth) ** 2).sum(axis=1) / (2 if plain.labels == 2 else 1)
    apart = [np.abs(ranks[plain.predicted] - ranks[gold]).astype(np.float64)] if ranks is not None else []
    gaps, place = gap_of_each(scores, gold, bins)
    amounts = np.column_stack([plain.amounts, brier, *apart])
    return replace(plain, amounts=amounts, gaps=gaps, place=place, bins=bins)


@dataclass(frozen=True)
class _Metrics:
    """Metrics of each sample, float64 [samples]; `means` are [samples, kinds].

    `precision`, `recall` and `f1` are [samples, labels].
    """

    accuracy: Floats
    macro_f1: Floats
    mcc: Floats
    means: Floats
    calibration_error: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def _metrics(counts: Counts, whole: Counts) -> _Metrics:
    """Compute the metrics of each sample.

    `whole` has the counts of all rows, from which the samples were drawn.
    """
    rows = int(whole.support.sum())
    # Where the denominator is 0 there are no hits, so 0/0 becomes 0/1.
    f1 = 2 * counts.hits / np.maximum(counts.predicted + counts.support, 1)
    # A label without a drawn gold row has an F1 of 0, whatever the model. Averaging such zeros lowers the interval of
    # macro F1 below its value: with two rows per label, by about a seventh. So the mean is over the drawn labels, and
    # is then scaled by the share of labels with any gold row.
    with_gold = (whole.support > 0).mean()
    return _Metrics(
        accuracy=counts.hits.sum(axis=1) / rows,
        macro_f1=f1.mean(axis=1, where=counts.support > 0) * with_gold,
        mcc=_mcc(counts, rows),
        means=counts.amounts / rows,
        calibration_error=np.abs(counts.gaps).sum(axis=1) / rows,
        precision=counts.hits / np.maximum(counts.predicted, 1),
        recall=counts.hits / np.maximum(counts.support, 1),
        f1=f1,
    )


def _mcc(counts: Counts, rows: int) -> Floats:
    """Return Matthews' correlation over all labels (Gorodkin 2004).

    It is 0 where all rows have one label.
    """
    shared = counts.hits.sum(axis=1) * rows - (counts.support * counts.predicted).sum(axis=1)
    # One root for each: their product overflows int64 from some hundred thousand rows on.
    gold, predicted = (np.sqrt(rows**2 - (margin**2).sum(axis=1)) for margin in (counts.support, counts.predicted))
    return np.asarray(np.divide(shared, gold * predicted, out=np.zeros(len(shared)), where=gold * predicted > 0))
