"""How good a classifier is, and how sure that is: metrics from logits, with bootstrap intervals over the rows.

The intervals are percentile bootstrap (Efron and Tibshirani 1993, chapter 13): as many rows as there are, drawn with
replacement, make one more data set of the same kind, and the spread of a metric over many of those is its interval.
Point values are scikit-learn's, with zero_division=0, over every label of the label map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from service.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

# Rows drawn at a time; each costs about 50 bytes, whatever the numbers of rows and resamples are.
_DRAWS_PER_BLOCK = 1 << 19


class _Evidence(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Evidence):
    """A metric's value on the rows as they are, and the ends of its interval: low <= value <= high."""

    value: float
    low: float
    high: float


class ClassMetrics(_Evidence):
    """One label's metrics; `support` is the number of its gold rows, and with few of them the intervals say little."""

    precision: Interval
    recall: Interval
    f1: Interval
    support: int


class Classification(_Evidence):
    """A classifier's metrics on labelled rows.

    `log_loss` is in nats per row. `confusion` counts rows: one list per gold label, in it one number per predicted
    label, both in the order of `labels`, as are the keys of `per_class`.
    """

    rows: int
    accuracy: Interval
    macro_f1: Interval
    log_loss: Interval
    per_class: dict[str, ClassMetrics]
    confusion: list[list[int]]
    labels: list[str]
    confidence: float
    resamples: int
    seed: int


class PairedDifference(_Evidence):
    """After minus before on the same rows: above 0 is better for accuracy and macro F1, below 0 for log loss."""

    accuracy: Interval
    macro_f1: Interval
    log_loss: Interval


def classification(
    logits: npt.NDArray[np.float32],
    gold: Ints,
    labels: Sequence[str],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Classification:
    """Measure one classifier.

    `logits` is float32 [rows, labels], `gold` int64 [rows] with indices into `labels`. `confidence` is the share of
    the resamples inside each interval. The bootstrap needs about 30 MB, and 100 bytes for each resample and label,
    however many rows there are. Equal arguments give equal results. Raises InputError when there are no rows, when
    shapes, label indices or types do not fit together, when a logit is not finite, or for settings out of range.
    """
    _check_settings(resamples, confidence, seed)
    _check_rows(logits, gold, "logits")
    if len(labels) != logits.shape[1]:
        raise InputError(f"{len(labels)} labels are named, but the logits have {logits.shape[1]} columns")
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise InputError(f"each label must be named once, but these are repeated: {', '.join(repeated)}")

    model = _score(logits, gold)
    confusion = np.bincount(model.gold * len(labels) + model.predicted, minlength=len(labels) ** 2)
    whole = _count_whole(model)
    (drawn,) = _resample([model], resamples, seed)
    value, spread = _metrics(whole, whole), _metrics(drawn, whole)

    def of_class(index: int) -> ClassMetrics:
        def interval(point: Floats, samples: Floats) -> Interval:
            return _interval(point[0, index], samples[:, index], confidence)

        return ClassMetrics(
            precision=interval(value.precision, spread.precision),
            recall=interval(value.recall, spread.recall),
            f1=interval(value.f1, spread.f1),
            support=int(whole.support[0, index]),
        )

    return Classification(
        rows=len(gold),
        accuracy=_interval(value.accuracy[0], spread.accuracy, confidence),
        macro_f1=_interval(value.macro_f1[0], spread.macro_f1, confidence),
        log_loss=_interval(value.log_loss[0], spread.log_loss, confidence),
        per_class={label: of_class(index) for index, label in enumerate(labels)},
        confusion=confusion.reshape(len(labels), len(labels)).tolist(),
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
    """Measure the difference, after minus before, of two classifiers that saw the same rows.

    Both `logits` are float32 [rows, labels], `gold` is int64 [rows]. Each resample draws the same rows for both, so
    that what makes a row easy or hard for both falls out of the difference. Raises InputError as `classification` does,
    and when the two differ in shape.
    """
    _check_settings(resamples, confidence, seed)
    _check_rows(before_logits, gold, "logits before")
    _check_rows(after_logits, gold, "logits after")
    if before_logits.shape != after_logits.shape:
        raise InputError(f"the logits before are {before_logits.shape}, but the logits after are {after_logits.shape}")

    models = [_score(before_logits, gold), _score(after_logits, gold)]
    wholes = [_count_whole(model) for model in models]
    draws = _resample(models, resamples, seed)
    value_before, value_after = (_metrics(whole, whole) for whole in wholes)
    before, after = (_metrics(drawn, whole) for drawn, whole in zip(draws, wholes, strict=True))

    def difference(metric: Callable[[_Metrics], Floats]) -> Interval:
        value = metric(value_after) - metric(value_before)
        return _interval(value[0], metric(after) - metric(before), confidence)

    return PairedDifference(
        accuracy=difference(lambda metrics: metrics.accuracy),
        macro_f1=difference(lambda metrics: metrics.macro_f1),
        log_loss=difference(lambda metrics: metrics.log_loss),
    )


def _check_settings(resamples: int, confidence: float, seed: int) -> None:
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, but is {resamples}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, but is {confidence}")
    if seed < 0:
        raise InputError(f"seed must not be negative, but is {seed}")


def _check_rows(logits: npt.NDArray[np.float32], gold: Ints, name: str) -> None:
    """Raise InputError unless metrics can be computed; `name` is what the message calls the logits."""
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


@dataclass(frozen=True)
class _Scored:
    """What the metrics need of each row: int64 [rows] gold and predicted labels, float64 [rows] losses in nats."""

    gold: Ints
    predicted: Ints
    losses: Floats
    labels: int


def _score(logits: npt.NDArray[np.float32], gold: Ints) -> _Scored:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_likelihood = shifted[np.arange(len(gold)), gold] - np.log(np.exp(shifted).sum(axis=1))
    # scikit-learn clips float64 probabilities so, which bounds the loss of a row at 36.04 nats.
    epsilon = np.finfo(np.float64).eps
    losses = -np.clip(log_likelihood, np.log(epsilon), np.log1p(-epsilon))
    return _Scored(gold.astype(np.int64), logits.argmax(axis=1), losses, labels=logits.shape[1])


@dataclass(frozen=True)
class _Counts:
    """What all the metrics of one model follow from, for one or more samples of the rows.

    `support`, `predicted` and `hits` are int64 [samples, labels]: gold rows, predicted rows, and rows where both agree,
    which are the margins and the diagonal of each sample's confusion matrix. `loss` is float64 [samples], summed.
    """

    support: Ints
    predicted: Ints
    hits: Ints
    loss: Floats


def _count(model: _Scored, picked: Ints, sample: Ints, samples: int) -> _Counts:
    """Count the rows `picked`, int64 [draws], each into its `sample`, int64 [draws] and below `samples`."""
    gold, predicted = model.gold[picked], model.predicted[picked]
    cell = sample * model.labels + gold

    def tally(cells: Ints) -> Ints:
        return np.bincount(cells, minlength=samples * model.labels).reshape(samples, model.labels)

    return _Counts(
        support=tally(cell),
        predicted=tally(sample * model.labels + predicted),
        hits=tally(cell[gold == predicted]),
        # The stubs of numpy do not know that weights make the counts float64.
        loss=np.bincount(sample, weights=model.losses[picked], minlength=samples).astype(np.float64, copy=False),
    )


def _count_whole(model: _Scored) -> _Counts:
    """Count every row once, as one sample."""
    rows = len(model.gold)
    return _count(model, picked=np.arange(rows), sample=np.zeros(rows, dtype=np.int64), samples=1)


def _resample(models: Sequence[_Scored], resamples: int, seed: int) -> list[_Counts]:
    """Draw as many rows as there are, with replacement, `resamples` times, and count each draw for every model."""
    rows = len(models[0].gold)
    rng = np.random.default_rng(seed)
    shape = (resamples, models[0].labels)
    totals = [
        _Counts(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(resamples))
        for _ in models
    ]
    # All the draws are one stream, of which every `rows` make a resample. A block ends anywhere in it, so that
    # neither many resamples nor many rows need much memory.
    for start in range(0, resamples * rows, _DRAWS_PER_BLOCK):
        stop = min(start + _DRAWS_PER_BLOCK, resamples * rows)
        picked = rng.integers(0, rows, size=stop - start)
        touched = slice(start // rows, (stop - 1) // rows + 1)
        sample = np.arange(start, stop) // rows - touched.start
        for total, model in zip(totals, models, strict=True):
            block = _count(model, picked, sample, touched.stop - touched.start)
            total.support[touched] += block.support
            total.predicted[touched] += block.predicted
            total.hits[touched] += block.hits
            total.loss[touched] += block.loss
    return totals


@dataclass(frozen=True)
class _Metrics:
    """The overall metrics, float64 [samples], and those of each label, float64 [samples, labels]."""

    accuracy: Floats
    macro_f1: Floats
    log_loss: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def _metrics(counts: _Counts, whole: _Counts) -> _Metrics:
    """Compute the metrics of each sample; `whole` are the counts of all the rows that the samples were drawn from."""
    rows = int(whole.support.sum())
    # Hits are never more than the rows they are divided by, so that 0/0 becomes 0/1.
    f1 = 2 * counts.hits / np.maximum(counts.predicted + counts.support, 1)
    # A label none of whose gold rows were drawn has an F1 of 0 that says nothing about the model. Averaged in, such
    # zeros pull the interval of macro F1 below its value: with two rows a label, by about a seventh. So the mean is
    # over the labels that were drawn, and the labels that have no gold row at all, always 0, then lower it.
    with_gold = (whole.support > 0).mean()
    return _Metrics(
        accuracy=counts.hits.sum(axis=1) / rows,
        macro_f1=f1.mean(axis=1, where=counts.support > 0) * with_gold,
        log_loss=counts.loss / rows,
        precision=counts.hits / np.maximum(counts.predicted, 1),
        recall=counts.hits / np.maximum(counts.support, 1),
        f1=f1,
    )


def _interval(value: np.float64, samples: Floats, confidence: float) -> Interval:
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    # F1 is biased: with few rows, or a low confidence, the middle of the resamples can lie wholly beside the value.
    return Interval(value=float(value), low=float(min(low, value)), high=float(max(high, value)))
