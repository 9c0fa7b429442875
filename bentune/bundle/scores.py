"""Logits to what a caller reads: probabilities, and labels ranked by them.

A row has one label, or with `multi_label` any number: then each label has a probability of its own, and the row gets
those that are above THRESHOLD.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

THRESHOLD = 0.5
NO_LABEL = "(none)"
"""How a row is counted that gets no label, so no label may be called so."""


class Prediction(TypedDict):
    """One label with its score, under the names of text-embeddings-inference."""

    label: str
    score: float


def probabilities(logits: Floats, *, multi_label: bool = False) -> Floats:
    """Softmax over the last axis, or with `multi_label` the sigmoid of each; same shape and dtype, no overflow."""
    if multi_label:
        small = np.exp(-np.abs(logits))
        each: Floats = np.where(logits >= 0, 1, small) / (1 + small)
        return each
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def answers(logits: npt.NDArray[np.floating], *, multi_label: bool) -> npt.NDArray[Any]:
    """What each row is answered: its best label, int64 [rows], or which labels, bool [rows, labels]."""
    return logits > 0 if multi_label else logits.argmax(axis=-1)


def differ(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Bool [rows]: where two answers are not the same; with many labels a row, where any of these is not."""
    unlike = np.asarray(one != other)
    return np.asarray(unlike.any(axis=-1) if unlike.ndim > 1 else unlike, dtype=np.bool_)


def best_label(scores: Floats, *, multi_label: bool) -> int:
    """The number of the likeliest label of one row, or that of labels where the row gets none: see `given_labels`."""
    best = int(scores.argmax())
    return len(scores) if multi_label and scores[best] <= THRESHOLD else best


def given_labels(scores: Floats, labels: Sequence[str], *, multi_label: bool) -> list[str]:
    """The labels that one row gets; NO_LABEL alone where it gets none."""
    if not multi_label:
        return [labels[int(scores.argmax())]]
    return [labels[index] for index in np.flatnonzero(scores > THRESHOLD).tolist()] or [NO_LABEL]


def ranked(scores: Floats, labels: Sequence[str], top_k: int | None = None, *, by: Floats) -> list[Prediction]:
    """The labels of one row with their scores, best first `by` logits, ties in label order; `top_k` keeps the first.

    Not by the scores: those of two labels may both be 1 in float32.
    """
    order = np.argsort(-by, kind="stable")[:top_k]
    return [{"label": labels[index], "score": float(scores[index])} for index in order]
