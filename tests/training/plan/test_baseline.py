"""Histograms count every row once, and their thresholds give as few false alarms as they promise."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import chi2

from bentune.bundle.baseline import Baseline
from bentune.bundle.processor import ImageSettings, ProcessorSettings
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel, softmax
from bentune.bundle.targets.target import Target
from service.monitoring.drift import stability_index
from service.tasks.images import Pixels
from service.tasks.tokenizer import Tokens
from training.plan.baseline import LOOKS_A_MONTH, threshold
from training.plan.baseline import baseline as baseline_of

TARGET = OneLabel(labels=["a", "b", "c"])
BEYOND = 1 / (LOOKS_A_MONTH * 3)
SETTINGS = ProcessorSettings(pad_id=0, unknown_id=1)


def baseline(lengths: Sequence[int], scored: np.ndarray, *, seed: int, target: Target) -> Baseline:
    texts = [Tokens([5] * length, [0] * length, truncated=length > 90) for length in lengths]
    return baseline_of(texts, SETTINGS, scored, seed, target)


def logits(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (rows, 3)).astype(np.float32)


def test_every_row_is_counted_once_where_it_belongs() -> None:
    lengths, scored = list(range(1, 101)), logits(100)
    found = baseline(lengths, scored, seed=1, target=TARGET)
    assert found.rows == 100
    assert len(found.features["token_length"].counts) == 10
    assert set(found.features["token_length"].counts) <= {9, 10, 11}
    edges = [-np.inf, *found.features["token_length"].edges, np.inf]
    assert found.features["token_length"].counts == np.histogram(lengths, edges)[0].tolist()
    assert found.features["label"].counts == np.bincount(scored.argmax(-1), minlength=3).tolist()
    confident = softmax(scored).max(-1)
    edges = [-np.inf, *found.features["confidence"].edges, np.inf]
    assert found.features["confidence"].counts == np.histogram(confident.astype(float), edges)[0].tolist()
    assert max(found.features["confidence"].counts) <= 25


def test_it_is_the_same_when_it_is_made_again() -> None:
    assert baseline(range(1, 61), logits(60), seed=1, target=TARGET) == baseline(
        range(1, 61), logits(60), seed=1, target=TARGET
    )


def test_few_rows_have_few_bins_and_one_length_two() -> None:
    assert len(baseline(range(1, 21), logits(20), seed=1, target=TARGET).features["token_length"].counts) == 4
    assert baseline([7] * 20, logits(20), seed=1, target=TARGET).features["token_length"].counts == [0, 20]


def test_what_is_all_but_equally_sure_is_not_cut_apart() -> None:
    """Nor where float32 calls it certain."""
    sure = np.zeros((100, 2), dtype=np.float32)
    sure[:, 0] = 5 + np.linspace(0, 0.01, 100)
    assert sorted(baseline([7] * 100, sure, seed=1, target=TARGET).features["confidence"].counts) in (
        [0, 100],
        [0, 0, 100],
    )
    sure[:, 0] = 100
    assert sum(baseline([7] * 100, sure, seed=1, target=TARGET).features["confidence"].counts) == 100


@pytest.mark.parametrize(("rows", "bins"), [(400, 10), (400, 3), (4000, 10)])
def test_with_many_rows_it_is_the_quantile_of_chi_square(rows: int, bins: int) -> None:
    """Yurdakul and Naranjo's law, at one false alarm in 13,000."""
    counts = np.full(bins, rows // bins)
    expected = (1 / counts.sum() + 1 / 500) * chi2.isf(BEYOND, bins - 1)
    assert threshold(counts, 500, np.random.default_rng(0), BEYOND) == pytest.approx(expected, rel=0.12)


def test_false_alarms_are_as_few_as_promised_whatever_the_truth_and_however_few_the_rows() -> None:
    """Truths are drawn, then test rows from each, then windows.

    Nothing that the threshold was computed from is used again. At one look in a hundred, for that can be counted. What
    is above it is the noise of so few truths.
    """
    generator, rates = np.random.default_rng(3), []
    for rows, bins in ((40, 8), (100, 3), (400, 10)):
        beyond = []
        for _ in range(200):
            truth = generator.dirichlet(np.ones(bins))
            counts = generator.multinomial(rows, truth)
            limit = threshold(counts, 500, generator, beyond=0.01, resamples=3000)
            windows = generator.multinomial(500, truth, 400)
            beyond.append((stability_index(windows, counts) > limit).mean())
        rates.append(np.mean(beyond))
    assert np.mean(rates) < 0.014, rates
    assert all(0.001 < rate < 0.025 for rate in rates), rates


def test_the_mean_of_several_pods_is_beyond_it_less_often_than_one_is() -> None:
    """The alert looks at the mean over the pods.

    More pods are therefore no more false alarms.
    """
    generator, alone, together = np.random.default_rng(4), [], []
    for _ in range(100):
        truth = generator.dirichlet(np.ones(6))
        counts = generator.multinomial(100, truth)
        limit = threshold(counts, 500, generator, beyond=0.01, resamples=3000)
        index = stability_index(generator.multinomial(500, truth, (200, 5)), counts)
        alone.append((index > limit).mean())
        together.append((index.mean(axis=-1) > limit).mean())
    assert np.mean(together) <= np.mean(alone)


def test_a_label_that_takes_half_of_the_traffic_is_seen_with_forty_rows() -> None:
    counts = np.array([10, 10, 10, 10])
    shifted = np.array([320, 60, 60, 60])
    assert stability_index(shifted, counts) > threshold(counts, 500, np.random.default_rng(0), BEYOND)


def test_of_any_number_of_labels_the_likeliest_stands_for_all_and_none_is_a_bin() -> None:
    given = np.array([[3.0, 1.0, -2.0]] * 5 + [[-1.0, 2.0, 2.5]] * 3 + [[-3.0, -0.5, -1.0]] * 4, dtype=np.float32)
    given = np.tile(given, (5, 1))
    found = baseline(list(range(5, 65)), given, seed=0, target=ManyLabels(labels=TARGET.labels))
    assert found.features["label"].counts == [25, 0, 15, 20]
    assert sum(found.features["confidence"].counts) == 60
    assert found.features["confidence"].edges[0] < 0.5 < found.features["confidence"].edges[-1]


def test_cut_texts_and_unknown_tokens_are_counted() -> None:
    texts = [
        Tokens([5] * 50, [0] * 50, truncated=row < 30, unknown=unknown) for row, unknown in enumerate([0, 1, 40] * 20)
    ]
    found = baseline_of(texts, SETTINGS, logits(60), 0, TARGET)
    assert found.features["truncated"].counts == [30, 30]
    # The shares are 0, 0.02 and 0.8.
    assert found.features["unknown_tokens"].edges == [0.001, 0.02, 0.1, 0.3]
    assert found.features["unknown_tokens"].counts == [20, 0, 20, 0, 20]
    assert [*found.features] == ["token_length", "truncated", "unknown_tokens", "label", "confidence"]


def test_a_tokenizer_that_reads_everything_has_no_unknown_tokens_and_an_image_only_its_patches() -> None:
    texts = [Tokens([5] * 7, [0] * 7, truncated=False)] * 60
    found = baseline_of(texts, ProcessorSettings(pad_id=0), logits(60), 0, TARGET)
    assert [*found.features] == ["token_length", "truncated", "label", "confidence"]
    images = [Pixels(np.zeros((3, 2, 2), dtype=np.float32), patches=5)] * 60
    found = baseline_of(images, ImageSettings(size=(2, 2)), logits(60), 0, TARGET)
    assert [*found.features] == ["token_length", "label", "confidence"]


def test_chinese_texts_on_an_english_tokenizer_are_drift() -> None:
    usual = [Tokens([5] * 50, [0] * 50, truncated=False, unknown=row % 40 == 0) for row in range(400)]
    found = baseline_of(usual, SETTINGS, logits(400), 0, TARGET).features["unknown_tokens"]
    foreign = np.array([450, 0, 0, 0, 50])
    assert stability_index(foreign, np.array(found.counts)) > found.threshold
    assert stability_index(np.array([485, 0, 15, 0, 0]), np.array(found.counts)) < found.threshold
