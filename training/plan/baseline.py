"""Baseline for drift: histograms of the test set, each with a threshold for the traffic's stability index."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from bentune.bundle.arrays import Floats, Logits
from bentune.bundle.baseline import Baseline, Binned, Histogram
from bentune.bundle.manifest import LABEL
from bentune.bundle.processor import TOKEN_LENGTH, TRUNCATED, UNKNOWN_TOKENS, InputSettings
from bentune.bundle.targets.target import Target
from service.monitoring.drift import BinCounts, stability_index
from service.tasks.task import Encoded

WINDOW = 500
# The alert waits for ten minutes, so each false alarm covers a point of a ten-minute grid. So the expected number of
# false alarms in a month is at most the number of grid points beyond the threshold.
LOOKS_A_MONTH = 30 * 24 * 6
UNKNOWN_EDGES = (0.001, 0.02, 0.1, 0.3)
"""Bins of the share of unknown tokens: none, hardly any, some, many, most."""

MOST_BINS = 10
ROWS_A_BIN = 5
# Edges of confidence are multiples of this in log-odds, so that nearly equal confidences share a bin: the rounding of
# another CPU must not look like drift.
LOG_ODDS = 0.25
MOST_LOG_ODDS = 12

RESAMPLES = 200_000
MOST_AT_ONCE = 2_000_000


def baseline(inputs: Sequence[Encoded], settings: InputSettings, logits: Logits, seed: int, target: Target) -> Baseline:
    """Build the baseline of encoded inputs and their logits, float32 [rows, labels]."""
    bins = min(MOST_BINS, max(2, len(inputs) // ROWS_A_BIN))
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    observed = [
        {**encoded.features, **target.observe(row).features}
        for encoded, row in zip(inputs, target.scores(logits), strict=True)
    ]
    names = [*sorted(settings.features), *target.features]
    generator, beyond = np.random.default_rng(seed), 1 / (LOOKS_A_MONTH * len(names))

    def counted(values: Floats, bins: int) -> Histogram:
        counts = np.bincount(values.astype(np.int64), minlength=bins)
        return Histogram(counts=counts.tolist(), threshold=threshold(counts, WINDOW, generator, beyond))

    def binned(values: Floats, edges: Floats) -> Binned:
        rising = np.unique(edges)
        counts = np.bincount(np.searchsorted(rising, values, side="right"), minlength=len(rising) + 1)
        limit = threshold(counts, WINDOW, generator, beyond)
        return Binned(edges=rising.tolist(), counts=counts.tolist(), threshold=limit)

    features: dict[str, Histogram] = {}
    for name in names:
        values = np.array([features_of[name] for features_of in observed], dtype=np.float64)
        if name == LABEL:
            features[name] = counted(values, len(target.counted))
        elif name == TRUNCATED:
            features[name] = counted(values, 2)
        elif name == TOKEN_LENGTH:
            features[name] = binned(values, np.ceil(np.quantile(values, inner)))
        elif name == UNKNOWN_TOKENS:
            features[name] = binned(values, np.array(UNKNOWN_EDGES))
        elif name == "confidence":
            features[name] = binned(values, _confidence_edges(values, inner))
        else:
            features[name] = binned(values, np.quantile(values, inner))
    return Baseline(rows=len(inputs), window=WINDOW, looks_a_month=LOOKS_A_MONTH, features=features)


def _confidence_edges(confidence: npt.NDArray[np.float64], inner: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return quantiles of confidence, rounded to multiples of LOG_ODDS in log-odds."""
    with np.errstate(divide="ignore"):
        odds = np.log(confidence) - np.log1p(-confidence)
    snapped = np.round(np.quantile(np.clip(odds, -MOST_LOG_ODDS, MOST_LOG_ODDS), inner) / LOG_ODDS) * LOG_ODDS
    return np.asarray(1 / (1 + np.exp(-snapped)), dtype=np.float64)


def threshold(
    counts: BinCounts,
    window: int,
    generator: np.random.Generator,
    beyond: float,
    resamples: int = RESAMPLES,
) -> float:
    """Return the index that a window of inputs rarely exceeds without drift.

    The window exceeds it with probability at most `beyond`. The test set is a sample itself, so both sides are
    resampled: the true shares given the counts (the Bayesian bootstrap of Rubin 1981, with Jeffreys' prior of half a
    row per bin), and a window of `window` inputs from these shares. With many rows the index is distributed as
    chi-square with bins - 1 degrees of freedom times 1 / rows + 1 / window (Yurdakul and Naranjo, Journal of Risk Model
    Validation 2020, 14(4)); with few rows in a bin it is not. The result is the order statistic that is above the
    quantile with 95 % confidence.
    """
    at_once = max(1, MOST_AT_ONCE // len(counts))
    found = []
    for start in range(0, resamples, at_once):
        shares = generator.dirichlet(counts + 0.5, min(at_once, resamples - start))
        found.append(stability_index(generator.multinomial(window, shares), counts))
    above = int(binom.ppf(0.05, resamples, beyond))
    ordered = np.sort(np.concatenate(found))
    return float(np.ceil(ordered[-max(above, 1)] * 1e4) / 1e4)
