"""What a pod later compares itself with, made from held-out rows: golden rows and the drift baseline."""

from typing import Any

import numpy as np

from service.contract import GoldenRow
from service.plan import FP32, scores_key
from service.providers import CPU
from service.scores import Floats, probabilities
from training.parity import Stop
from training.rows import Rows


def golden_rows(rows: Rows, stop: Stop, most: int, tolerance: float) -> list[GoldenRow]:
    """Up to `most` rows with the probabilities that fp32 gives them; predicted labels take turns."""
    scores = probabilities(stop.logits)
    predicted = stop.logits.argmax(axis=-1)
    # In turn, so that two labels that changed places cannot hide behind a third that most rows have.
    turns = np.array([int((predicted[:row] == label).sum()) for row, label in enumerate(predicted)])
    return [
        GoldenRow(
            text=rows.texts[row],
            text_pair=rows.pairs[row] if rows.pairs is not None else None,
            label=stop.labels[int(predicted[row])],
            scores={scores_key(FP32, CPU): rounded(scores[row])},
            tolerance=tolerance,
        )
        for row in np.lexsort((predicted, turns))[:most]
    ]


def rounded(scores: Floats) -> list[float]:
    """Probabilities as they are written down."""
    return [round(float(score), 7) for score in scores]


def baseline(stop: Stop) -> dict[str, Any]:
    """Histograms of held-out traffic: token length, predicted label, confidence. Counts of rows."""
    lengths = np.array([len(ids) for ids in stop.token_ids])
    confidence = probabilities(stop.logits).max(axis=-1)
    predicted = np.bincount(stop.logits.argmax(axis=-1), minlength=len(stop.labels))
    length_edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 11)).astype(int))
    length_counts, length_edges = np.histogram(lengths, bins=length_edges if len(length_edges) > 1 else 1)
    confidence_counts, confidence_edges = np.histogram(confidence, bins=10, range=(0, 1))
    return {
        "rows": len(lengths),
        "token_length": {"edges": length_edges.tolist(), "counts": length_counts.tolist()},
        "confidence": {"edges": confidence_edges.tolist(), "counts": confidence_counts.tolist()},
        "predicted_label": dict(zip(stop.labels, predicted.tolist(), strict=True)),
    }
