"""Logits to what a caller reads: probabilities, and labels ranked by them."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Prediction(TypedDict):
    """One label with its score, under the names of text-embeddings-inference."""

    label: str
    score: float


def probabilities(logits: Floats) -> Floats:
    """Softmax over the last axis, stable for large logits; same shape and dtype."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def ranked(scores: Floats, labels: Sequence[str], top_k: int | None = None) -> list[Prediction]:
    """The labels of one row, best first, ties in label order; `top_k` keeps only the first ones."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [{"label": labels[index], "score": float(scores[index])} for index in order]
