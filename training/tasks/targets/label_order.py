"""Order of labels: numeric where all labels are whole numbers, else alphabetic."""

import math
import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bentune.bundle.errors import InputError

NUMBER = re.compile(r"-?[0-9]{1,18}")


def label_order(labels: Iterable[str]) -> list[str]:
    """Sort the labels in the order in which a model numbers them."""
    found = set(labels)
    numeric = all(NUMBER.fullmatch(label) for label in found)
    return sorted(found, key=lambda label: (int(label) if numeric else 0, label))


def ranks_of(labels: list[str]) -> npt.NDArray[np.int64]:
    """Rank the labels by their numbers, int64 [labels]; equal numbers share a rank.

    Raises InputError for a label that is not a number.
    """
    numbers = []
    for label in labels:
        try:
            numbers.append(float(label))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise InputError(
                f"evaluate.ordinal: label {label!r} is no number, so it has no rank: name the labels by "
                "numbers with data.labels, or leave evaluate.ordinal out"
            )
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)
