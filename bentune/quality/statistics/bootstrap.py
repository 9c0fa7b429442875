"""Bootstrap intervals from counts and sums, without keeping the resampled rows.

The intervals are percentile bootstrap (Efron and Tibshirani 1993, chapter 13). A resample draws N of the N rows with
replacement. The percentiles of a metric over many resamples are the ends of its interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bentune.bundle.arrays import Floats, Ints
from bentune.bundle.errors import InputError
from bentune.bundle.files import Frozen

# Rows drawn at a time. Each costs about 50 bytes, so memory does not grow with the rows or the resamples.
_DRAWS_PER_BLOCK = 1 << 19


class Interval(Frozen):
    """A metric's value on all rows, and the ends of its interval: low <= value <= high."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored:
    """Per-row inputs of one model's metrics.

    `gold` and `predicted` are label indices, int64 [rows]. `amounts`, float64 [rows, kinds], are averaged over the
    rows. Each row adds its `gaps`, float64 [rows], to its bin of confidence, `place`, int64 [rows] and below `bins`.
    """

    gold: Ints
    predicted: Ints
    labels: int
    amounts: Floats
    gaps: Floats
    place: Ints
    bins: int


@dataclass(frozen=True)
class Counts:
    """Counts and sums of one or more samples of the rows, enough for all metrics of one model.

    `support`, `predicted` and `hits` are int64 [samples, labels]: gold rows, predicted rows, and rows where both agree.
    They are the margins and the diagonal of each sample's confusion matrix. `amounts`, float64 [samples, kinds], and
    `gaps`, float64 [samples, bins], are summed.
    """

    support: Ints
    predicted: Ints
    hits: Ints
    amounts: Floats
    gaps: Floats


def check_settings(resamples: int, confidence: float, seed: int) -> None:
    """Raise InputError for settings out of range."""
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, but is {resamples}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, but is {confidence}")
    if seed < 0:
        raise InputError(f"seed must not be negative, but is {seed}")


def count_whole(model: Scored) -> Counts:
    """Count every row once, as one sample."""
    rows = len(model.gold)
    return _count(model, picked=np.arange(rows), sample=np.zeros(rows, dtype=np.int64), samples=1)


def resample(models: Sequence[Scored], resamples: int, seed: int) -> list[Counts]:
    """Draw all rows with replacement `resamples` times; count each for every model."""
    rows = len(models[0].gold)
    rng = np.random.default_rng(seed)
    totals = [_nothing(model, resamples) for model in models]
    # All draws are one stream, and every `rows` draws make a resample. A block may end inside a resample, so memory
    # grows neither with the resamples nor with the rows.
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
            total.amounts[touched] += block.amounts
            total.gaps[touched] += block.gaps
    return totals


def interval(value: np.float64, samples: Floats, confidence: float) -> Interval:
    """Return the value with the percentile interval of `samples`, float64 [resamples]."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    # F1 is biased: with few rows or a low confidence, the percentiles can exclude the value.
    return Interval(value=float(value), low=float(min(low, value)), high=float(max(high, value)))


def _nothing(model: Scored, samples: int) -> Counts:
    by_label = (samples, model.labels)
    return Counts(
        support=np.zeros(by_label, np.int64),
        predicted=np.zeros(by_label, np.int64),
        hits=np.zeros(by_label, np.int64),
        amounts=np.zeros((samples, model.amounts.shape[1])),
        gaps=np.zeros((samples, model.bins)),
    )


def _count(model: Scored, picked: Ints, sample: Ints, samples: int) -> Counts:
    """Count the rows `picked`, int64 [draws], each into its `sample`, int64 [draws]."""
    gold, predicted = model.gold[picked], model.predicted[picked]
    cell = sample * model.labels + gold

    def tally(cells: Ints) -> Ints:
        return np.bincount(cells, minlength=samples * model.labels).reshape(samples, model.labels)

    def total(cells: Ints, weights: Floats, size: int) -> Floats:
        # numpy's stubs omit that weights make the counts float64.
        return np.bincount(cells, weights=weights, minlength=size).astype(np.float64, copy=False)

    amounts = [total(sample, amount[picked], samples) for amount in model.amounts.T]
    gaps = np.zeros((samples, 0))
    if model.bins:
        cells = sample * model.bins + model.place[picked]
        gaps = total(cells, model.gaps[picked], samples * model.bins).reshape(samples, model.bins)
    return Counts(
        support=tally(cell),
        predicted=tally(sample * model.labels + predicted),
        hits=tally(cell[gold == predicted]),
        amounts=np.stack(amounts, axis=1),
        gaps=gaps,
    )
