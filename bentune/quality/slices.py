"""Parts of the rows in which a candidate may have become worse while the whole hides it: by class, length, or column.

Each slice has the same numbers as the whole. As many are tested at once, their one-sided p-values are raised by Holm's
method (1979): all of them together are wrong no more often than one test would be.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bentune.bundle.files import Frozen
from bentune.bundle.scores import NO_LABEL, answers, differ
from bentune.bundle.verdict import CompareSettings, Difference
from bentune.quality import multi_label as multilabel
from bentune.quality.bootstrap import Floats
from bentune.quality.classification import PairedDifference, paired
from bentune.quality.labelled import Labelled
from bentune.quality.noninferiority import interval, p_value

LABEL, LENGTH = "label", "characters"
MOST_VALUES = 20
OTHERS = "(others)"
Mask = npt.NDArray[np.bool_]
Logits = npt.NDArray[np.float32]

FROZEN_LEVEL = 2
"""It was named before anybody looked, so it is not one of many, and doubt there counts more than bad luck."""


class Slice(Frozen):
    """Candidate minus served in the rows where `by` is `value`.

    `accuracy` is a share with one-sided limits. `worse_p` is McNemar's exact test for that the candidate is worse,
    `margin_p` the test for that it loses the margin or more; both are one-sided and after Holm. `vetoes` when it is
    significantly worse, and by more than the margin, where for one that is `frozen` FROZEN_LEVEL times alpha, without
    Holm, is significant; `non_inferior` when it is shown to lose less.
    """

    by: str
    value: str
    rows: int
    gained: int
    lost: int
    accuracy: Difference
    macro_f1: Difference
    log_loss: Difference
    worse_p: float
    margin_p: float
    non_inferior: bool
    vetoes: bool
    frozen: bool = False


def masks(rows: Labelled, labels: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[str, str, Mask]]:
    """(column, value, bool [rows]) of each slice: the labels, quarters of length, and the values of columns."""
    one_each = rows.gold.ndim == 1
    has: Mask = rows.gold[:, None] == np.arange(len(labels)) if one_each else rows.gold.astype(np.bool_)
    without = np.asarray(~has.any(axis=1), dtype=np.bool_)
    for label, inside in (*zip(labels, has.T, strict=True), (NO_LABEL, without)):
        if inside.any():
            yield LABEL, label, inside
    lengths = [len(text) + len(pair or "") for text, pair in rows.texts]
    yield from _quarters(LENGTH, np.array(lengths, dtype=np.float64))
    for column in columns:
        yield from by_column(column, rows.values[column])


def compare_slices(
    rows: Labelled,
    candidate: Logits,
    served: Logits,
    labels: Sequence[str],
    settings: CompareSettings,
) -> list[Slice]:
    """Every slice; `candidate` and `served` are the two models' logits, float32 [rows, labels]."""
    from scipy.stats import binom

    multi_label = rows.gold.ndim > 1
    right, was_right = (~differ(answers(logits, multi_label=multi_label), rows.gold) for logits in (candidate, served))
    found = list(masks(rows, labels, settings.slices))
    there = {(by, value) for by, value, _ in found}
    # Whatever else its column has: neither among the rare values nor in a quarter.
    frozen = [one for one in settings.frozen.items() if one not in there]
    found += [(by, value, np.array([one == value for one in rows.values[by]])) for by, value in frozen]
    margin = settings.margin / 100
    gained = [int((mask & right & ~was_right).sum()) for _, _, mask in found]
    lost = [int((mask & ~right & was_right).sum()) for _, _, mask in found]
    counts = [int(mask.sum()) for _, _, mask in found]
    alone = [float(binom.sf(c - 1, b + c, 0.5)) for b, c in zip(gained, lost, strict=True)]
    worse = _holm(alone)
    inferior = _holm([p_value(b, c, n, margin) for b, c, n in zip(gained, lost, counts, strict=True)])
    slices = []
    for number, (by, value, mask) in enumerate(found):
        difference, low, high = interval(gained[number], lost[number], counts[number], settings.alpha)
        firm = settings.frozen.get(by) == value
        others = _paired(candidate[mask], served[mask], rows.gold[mask], settings)
        slices.append(
            Slice(
                by=by,
                value=value,
                rows=counts[number],
                gained=gained[number],
                lost=lost[number],
                accuracy=Difference(value=difference, low=low, high=high),
                macro_f1=Difference.model_validate(others.macro_f1.model_dump()),
                log_loss=Difference.model_validate(others.log_loss.model_dump()),
                worse_p=worse[number],
                margin_p=inferior[number],
                non_inferior=inferior[number] <= settings.alpha,
                vetoes=difference < -margin
                and (worse[number] <= settings.alpha or (firm and alone[number] <= FROZEN_LEVEL * settings.alpha)),
                frozen=firm,
            )
        )
    return slices


def _paired(
    candidate: Logits, served: Logits, gold: npt.NDArray[np.int64], settings: CompareSettings
) -> PairedDifference:
    return (multilabel.paired if gold.ndim > 1 else paired)(
        served,
        candidate,
        gold,
        resamples=settings.resamples,
        confidence=1 - 2 * settings.alpha,
        seed=settings.seed,
    )


def _holm(p_values: Sequence[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    raised: list[float] = multipletests(p_values, method="holm")[1].tolist()
    return raised


def by_column(column: str, values: Sequence[str]) -> Iterator[tuple[str, str, Mask]]:
    """The commonest values; numbers of which there are many are quartered."""
    counts = Counter(values)
    numbers = _numbers(values) if len(counts) > MOST_VALUES else None
    if numbers is not None:
        yield from _quarters(column, numbers)
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


def _quarters(by: str, numbers: Floats) -> Iterator[tuple[str, str, Mask]]:
    """Up to four parts of like size."""
    edges = np.quantile(numbers, [0.25, 0.5, 0.75])
    place = np.searchsorted(edges, numbers, side="left")
    for quarter in np.unique(place).tolist():
        inside = place == quarter
        low, high = numbers[inside].min(), numbers[inside].max()
        yield by, (f"{low:g}" if low == high else f"{low:g} to {high:g}"), inside
