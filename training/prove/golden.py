"""What a pod replays before it turns ready: golden rows, chosen among held-out ones."""

import numpy as np

from bentune.bundle.manifest import GoldenRow
from bentune.bundle.plan import CPU, FP32, scores_key
from bentune.bundle.scores import Floats, probabilities
from training.prove.parity import Stop
from training.tasks.rows import Rows

GOLDEN_CHARACTERS = 700_000
"""Of a row that is carried by every pod: photographs may be much larger."""


def golden_rows(rows: Rows, stop: Stop, most: int, tolerance: float, *, multi_label: bool = False) -> list[GoldenRow]:
    """Up to `most` rows with the probabilities that fp32 gives them; the labels that are likeliest take turns.

    None has more than GOLDEN_CHARACTERS, unless all have: then the shortest are taken.
    """
    sizes = np.array([len(text) for text in rows.texts])
    small = np.flatnonzero(sizes <= GOLDEN_CHARACTERS)
    kept = small if len(small) else np.argsort(sizes, kind="stable")[:most]
    scores = probabilities(stop.logits, multi_label=multi_label)
    predicted = stop.logits[kept].argmax(axis=-1)
    # In turn, so that two labels that changed places cannot hide behind a third that most rows have.
    turns = np.array([int((predicted[:row] == label).sum()) for row, label in enumerate(predicted)])
    return [
        GoldenRow(
            text=rows.texts[row],
            text_pair=rows.pairs[row] if rows.pairs is not None else None,
            label=stop.labels[int(stop.logits[row].argmax())],
            scores={scores_key(FP32, CPU): rounded(scores[row])},
            tolerance=tolerance,
        )
        for row in kept[np.lexsort((predicted, turns))[:most]]
    ]


def rounded(scores: Floats) -> list[float]:
    """Probabilities as they are written down."""
    return [round(float(score), 7) for score in scores]
