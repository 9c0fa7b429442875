"""Golden rows: rows of the test set that a pod replays before it becomes ready."""

import numpy as np

from bentune.bundle.arrays import Float32s
from bentune.bundle.manifest import GoldenRow
from bentune.bundle.plan import CPU, FP32, scores_key
from bentune.bundle.targets.target import Target
from training.prove.parity import Stop
from training.tasks.rows import Rows

GOLDEN_CHARACTERS = 700_000
"""Largest size of a golden row, because every pod loads it; photographs may be much larger."""


def golden_rows(
    rows: Rows, stop: Stop, most: int, tolerance: float, target: Target, *, extremes: int = 0
) -> list[GoldenRow]:
    """Choose up to `most` rows, with their fp32 scores.

    The last rows, as many as there are `extremes`, are chosen where that leaves at least as many others.

    The predicted labels take turns. Rows longer than GOLDEN_CHARACTERS are left out; if all are, the shortest are
    chosen.
    """
    own = len(rows) - extremes
    forced = np.arange(own, len(rows)) if most >= 2 * extremes else np.arange(0)
    sizes = np.array([len(text) for text in rows.texts[:own]])
    small = np.flatnonzero(sizes <= GOLDEN_CHARACTERS)
    kept = small if len(small) else np.argsort(sizes, kind="stable")[:most]
    scores = target.scores(stop.logits)
    predicted = target.turns(stop.logits[kept])
    # In turn, so that a swap of two rare labels cannot hide behind a frequent third one.
    turns = np.array([int((predicted[:row] == label).sum()) for row, label in enumerate(predicted)])
    return [
        GoldenRow(
            text=rows.texts[row],
            text_pair=rows.pairs[row] if rows.pairs is not None else None,
            label=target.best(stop.logits[row]),
            scores={scores_key(FP32, CPU): rounded(scores[row])},
            tolerance=tolerance,
        )
        for row in (*kept[np.lexsort((predicted, turns))[: most - len(forced)]], *forced)
    ]


def rounded(scores: Float32s) -> list[float]:
    """Round scores as they are stored."""
    return [round(float(score), 7) for score in scores]
