"""What changed between the answers of two models to the same rows: each metric, and the labels that flipped."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rollout.bootstrap import Floats
from rollout.calibration import ece, ece_difference, reliability
from rollout.comparison import Flip, Flips, Metric
from rollout.labelled import Labelled
from rollout.quality import classification, paired
from service.verdict import CompareSettings, Difference

LEAST = 1e-30
"""Of a probability, so that its logarithm is finite in float32; the log loss of a row is bounded anyway."""


def log_probabilities(scores: Floats) -> npt.NDArray[np.float32]:
    """What the metrics take for logits, float32 [rows, labels]: their softmax are the probabilities again."""
    return np.log(np.maximum(scores, LEAST)).astype(np.float32)


def metrics_of(
    candidate: Floats, served: Floats, gold: npt.NDArray[np.int64], labels: Sequence[str], settings: CompareSettings
) -> list[Metric]:
    """Each metric of both, and its paired difference with a bootstrap interval; the scores are probabilities."""
    confidence = 1 - 2 * settings.alpha
    new, old = log_probabilities(candidate), log_probabilities(served)
    # The intervals of one side alone decide nothing: as few resamples as there may be.
    sides = [classification(logits, gold, labels, resamples=1) for logits in (new, old)]
    differences = paired(
        old, new, gold, resamples=settings.resamples, confidence=confidence, seed=settings.seed
    ).model_dump()
    found = [
        Metric(
            name=name.replace("_", " ").replace("f1", "F1"),
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


def flips_of(rows: Labelled, candidate: Floats, served: Floats, labels: Sequence[str], most: int) -> Flips:
    """The rows whose label changed; of those gained or lost the `most` that the candidate is surest of."""
    new, old = candidate.argmax(axis=1), served.argmax(axis=1)
    sure, was_sure = candidate.max(axis=1), served.max(axis=1)
    right, was_right = new == rows.gold, old == rows.gold

    def examples(chosen: npt.NDArray[np.bool_]) -> list[Flip]:
        places = sorted(np.flatnonzero(chosen).tolist(), key=lambda place: (-sure[place], place))[:most]
        return [
            Flip(
                row=rows.numbers[place],
                label=labels[rows.gold[place]],
                candidate=labels[new[place]],
                candidate_confidence=float(sure[place]),
                served=labels[old[place]],
                served_confidence=float(was_sure[place]),
            )
            for place in places
        ]

    gained, lost = right & ~was_right, ~right & was_right
    return Flips(
        gained=int(gained.sum()),
        lost=int(lost.sum()),
        both_wrong=int(((new != old) & ~right & ~was_right).sum()),
        gained_examples=examples(gained),
        lost_examples=examples(lost),
    )
