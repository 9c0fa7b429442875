"""Baseline for drift: histograms of the test set, each with the index that traffic like it does not exceed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from bentune.bundle.arrays import Logits
from bentune.bundle.baseline import Baseline, Binned, Histogram
from bentune.bundle.targets.target import Target
from service.monitoring.drift import BinCounts, stability_index

WINDOW = 500
# The alert waits for ten minutes. However fast the window moves, each false alarm covers a point of a ten-minute grid.
# So a month has at most as many expected false alarms as grid points beyond the threshold.
LOOKS_A_MONTH = 30 * 24 * 6
FEATURES = 3

MOST_BINS = 10
ROWS_A_BIN = 5
# Edges of confidence are multiples of this in log-odds. Nearly equal confidences then share a bin, and another CPU's
# rounding does not look like drift.
LOG_ODDS = 0.25
MOST_LOG_ODDS = 12

RESAMPLES = 200_000
MOST_AT_ONCE = 2_000_000


def baseline(lengths: Sequence[int], logits: Logits, seed: int, target: Target) -> Baseline:
    """Build the baseline of rows from their lengths and logits.

    `lengths` are in tokens, and `logits` are float32 [rows, labels].
    """
    bins = min(MOST_BINS, max(2, len(lengths) // ROWS_A_BIN))
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    tokens, observed = np.array(lengths), [target.observe(row).features for row in target.scores(logits)]
    generator = np.random.default_rng(seed)
    features: dict[str, Histogram] = {"token_length": _binned(tokens, np.ceil(np.quantile(tokens, inner)), generator)}
    for name in target.features:
        values = np.array([features_of[name] for features_of in observed], dtype=np.float64)
        if name == "label":
            labels = np.bincount(values.astype(np.int64), minlength=len(target.counted))
            features[name] = Histogram(counts=labels.tolist(), threshold=threshold(labels, WINDOW, generator))
        elif name == "confidence":
            features[name] = _binned(values, _confidence_edges(values, inner), generator)
        else:
            features[name] = _binned(values, np.quantile(values, inner), generator)
    return Baseline(rows=len(tokens), window=WINDOW, looks_a_month=LOOKS_A_MONTH, features=features)


def _confidence_edges(confidence: npt.NDArray[np.float64], inner: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return quantiles as multiples of LOG_ODDS in log-odds."""
    with np.errstate(divide="ignore"):
        odds = np.log(confidence) - np.log1p(-confidence)
    snapped = np.round(np.quantile(np.clip(odds, -MOST_LOG_ODDS, MOST_LOG_ODDS), inner) / LOG_ODDS) * LOG_ODDS
    return np.asarray(1 / (1 + np.exp(-snapped)), dtype=np.float64)


def _binned(values: npt.NDArray[np.generic], edges: npt.NDArray[np.float64], generator: np.random.Generator) -> Binned:
    rising = np.unique(edges)
    counts = np.bincount(np.searchsorted(rising, values, side="right"), minlength=len(rising) + 1)
    limit = threshold(counts, WINDOW, generator)
    return Binned(edges=rising.tolist(), counts=counts.tolist(), threshold=limit)


def threshold(
    counts: BinCounts,
    window: int,
    generator: np.random.Generator,
    beyond: float = 1 / (LOOKS_A_MONTH * FEATURES),
    resamples: int = RESAMPLES,
) -> float:
    """Return the index that a window of inputs rarely exceeds without drift.

    The window exceeds it with probability at most `beyond`. The test set is a sample itself, so both sides are
    resampled: the true shares given the counts (the Bayesian bootstrap of Rubin 1981, with Jeffreys' prior of half a
    row per bin), and a window of `window` inputs from these. With many rows the index is distributed as chi-square with
    bins - 1 degrees of freedom times 1 / rows + 1 / window (Yurdakul and Naranjo, Journal of Risk Model Validation
    2020, 14(4)); with few rows in a bin it is not. The result is the order statistic that lies above the quantile with
    95 % confidence.
    """
    at_once = max(1, MOST_AT_ONCE // len(counts))
    found = []
    for start in range(0, resamples, at_once):
        shares = generator.dirichlet(counts + 0.5, min(at_once, resamples - start))
        found.append(stability_index(generator.multinomial(window, shares), counts))
    above = int(binom.ppf(0.05, resamples, beyond))
    ordered = np.sort(np.concatenate(found))
    return float(np.ceil(ordered[-max(above, 1)] * 1e4) / 1e4)
