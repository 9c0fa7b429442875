"""Groups of rows, by the values of a column or the quarters of a number."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from bentune.bundle.arrays import Floats, Mask

MOST_VALUES = 20
OTHERS = "(others)"


def by_column(column: str, values: Sequence[str]) -> Iterator[tuple[str, str, Mask]]:
    """Yield (column, value, bool [rows]) for the most common values.

    A column of many different numbers is split into quarters.
    """
    counts = Counter(values)
    numbers = _numbers(values) if len(counts) > MOST_VALUES else None
    if numbers is not None:
        yield from quarters(column, numbers)
        return
    shown = [value for value, _ in counts.most_common(MOST_VALUES)]
    for value in shown:
        yield column, value, np.array([one == value for one in values])
    if len(counts) > MOST_VALUES:
        yield column, OTHERS, np.array([one not in shown for one in values])


def _numbers(values: Sequence[str]) -> Floats | None:
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def quarters(by: str, numbers: Floats) -> Iterator[tuple[str, str, Mask]]:
    """Yield up to four parts of similar size, in the form of `by_column`."""
    edges = np.quantile(numbers, [0.25, 0.5, 0.75])
    place = np.searchsorted(edges, numbers, side="left")
    for quarter in np.unique(place).tolist():
        inside = place == quarter
        low, high = numbers[inside].min(), numbers[inside].max()
        yield by, (f"{low:g}" if low == high else f"{low:g} to {high:g}"), inside
