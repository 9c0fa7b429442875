"""What changed between the answers of two models to the same rows: each metric, and the labels that flipped."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bentune.bundle.scores import NO_LABEL, THRESHOLD, differ
from bentune.bundle.verdict import CompareSettings, Difference
from bentune.quality import classification as quality
from bentune.quality import multi_label as multilabel
from bentune.quality.bootstrap import Floats
from bentune.quality.calibration import ece, ece_difference, reliability
from bentune.quality.labelled import Labelled
from rollout.compare.decision import Flip, Flips, Metric

ACCURACY, SUBSET_ACCURACY = "accuracy", "subset accuracy"
LEAST = 1e-30
"""Of a probability, so that its logarithm is finite in float32; the log loss of a row is bounded anyway."""


def log_probabilities(scores: Floats) -> npt.NDArray[np.float32]:
    """What the metrics take for logits, float32 [rows, labels]: their softmax are the probabilities again."""
    return np.log(np.maximum(scores, LEAST)).astype(np.float32)


def log_odds(scores: Floats) -> npt.NDArray[np.float32]:
    """The same where rows have any number of labels: their sigmoids are the probabilities again."""
    bounded = np.clip(scores, LEAST, 1 - np.finfo(np.float64).eps)
    return (np.log(bounded) - np.log1p(-bounded)).astype(np.float32)


def logits_of(scores: Floats, gold: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What the metrics take for logits of these probabilities, by the shape of `gold`."""
    return log_odds(scores) if gold.ndim > 1 else log_probabilities(scores)


def metrics_of(
    candidate: Floats, served: Floats, gold: npt.NDArray[np.int64], labels: Sequence[str], settings: CompareSettings
) -> list[Metric]:
    """Each metric of both, and its paired difference with a bootstrap interval; the scores are probabilities."""
    confidence = 1 - 2 * settings.alpha
    metrics = multilabel if gold.ndim > 1 else quality
    new, old = logits_of(candidate, gold), logits_of(served, gold)
    # The intervals of one side alone decide nothing: as few resamples as there may be.
    sides = [metrics.classification(logits, gold, labels, resamples=1) for logits in (new, old)]
    differences = metrics.paired(
        old, new, gold, resamples=settings.resamples, confidence=confidence, seed=settings.seed
    ).model_dump()
    found = [
        Metric(
            name=metric_of(gold) if name == "accuracy" else name.replace("_", " ").replace("f1", "F1"),
            candidate=getattr(sides[0], name).value,
            served=getattr(sides[1], name).value,
            difference=Difference.model_validate(differences[name]),
            higher_is_better=name != "log_loss",
        )
        for name in ("accuracy", "macro_f1", "log_loss")
    ]
    bins = settings.calibration_bins
    calibration = Metric(
        name="calibration error",
        candidate=ece(reliability(candidate, gold, bins)),
        served=ece(reliability(served, gold, bins)),
        difference=ece_difference(
            candidate,
            served,
            gold,
            bins=bins,
            resamples=settings.resamples,
            confidence=confidence,
            seed=settings.seed,
        ),
        higher_is_better=False,
    )
    return [*found, calibration]


def metric_of(gold: npt.NDArray[np.int64]) -> str:
    """The name of what decides: the share of rows that are answered right, with all of their labels."""
    return SUBSET_ACCURACY if gold.ndim > 1 else ACCURACY


def decided(scores: Floats, gold: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """What each row is answered, in the shape of `gold`."""
    return scores > THRESHOLD if gold.ndim > 1 else scores.argmax(axis=1)


def _sureness(scores: Floats, gold: npt.NDArray[np.int64]) -> Floats:
    sure = np.maximum(scores, 1 - scores).min(axis=1) if gold.ndim > 1 else scores.max(axis=1)
    return np.asarray(sure, dtype=np.float64)


def _named(answer: Any, labels: Sequence[str]) -> str:
    if np.ndim(answer) == 0:
        return labels[int(answer)]
    return ", ".join(labels[number] for number in np.flatnonzero(answer).tolist()) or NO_LABEL


def flips_of(rows: Labelled, candidate: Floats, served: Floats, labels: Sequence[str], most: int) -> Flips:
    """The rows whose label changed; of those gained or lost the `most` that the candidate is surest of.

    Where rows have any number of labels, one is as sure of all as of the least sure.
    """
    new, old = (decided(scores, rows.gold) for scores in (candidate, served))
    sure, was_sure = _sureness(candidate, rows.gold), _sureness(served, rows.gold)
    right, was_right = ~differ(new, rows.gold), ~differ(old, rows.gold)

    def examples(chosen: npt.NDArray[np.bool_]) -> list[Flip]:
        places = sorted(np.flatnonzero(chosen).tolist(), key=lambda place: (-sure[place], place))[:most]
        return [
            Flip(
                row=rows.numbers[place],
                label=_named(rows.gold[place], labels),
                candidate=_named(new[place], labels),
                candidate_confidence=float(sure[place]),
                served=_named(old[place], labels),
                served_confidence=float(was_sure[place]),
            )
            for place in places
        ]

    gained, lost = right & ~was_right, ~right & was_right
    return Flips(
        gained=int(gained.sum()),
        lost=int(lost.sum()),
        both_wrong=int((differ(new, old) & ~right & ~was_right).sum()),
        gained_examples=examples(gained),
        lost_examples=examples(lost),
    )
