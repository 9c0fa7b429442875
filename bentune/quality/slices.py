"""Comparison by slices of the rows: by label, length or column.

A candidate may be worse in one slice while the overall numbers hide it. Many slices are tested at once, so their
one-sided p-values are corrected by Holm's method (1979), which bounds the probability of any false alarm.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from bentune.bundle.arrays import Logits, Mask
from bentune.bundle.files import Frozen
from bentune.bundle.targets.target import Target
from bentune.bundle.verdict import CompareSettings, Difference
from bentune.quality.groups import by_column, quarters
from bentune.quality.labelled import Labelled
from bentune.quality.registry import quality_of

LENGTH = "characters"

FROZEN_LEVEL = 2
"""Factor on alpha for a frozen slice: it is named in advance, needs no correction, and a doubt there counts more."""


class SliceDifference(Frozen):
    """Candidate minus served in the rows where `by` is `value`.

    `difference` is that of the metric that decides, a share with one-sided limits; `others` has those of the other
    metrics. `worse_p` tests that the candidate is worse, `margin_p` that it loses the margin or more; both are
    one-sided and after Holm. A slice `vetoes` when it is significantly worse, and by more than the margin. The level is
    alpha, and for a `frozen` slice also FROZEN_LEVEL times alpha without Holm. It is `non_inferior` when it
    significantly loses less than the margin.
    """

    by: str
    value: str
    rows: int
    gained: int
    lost: int
    difference: Difference
    others: dict[str, Difference]
    worse_p: float
    margin_p: float
    non_inferior: bool
    vetoes: bool
    frozen: bool = False


def masks(rows: Labelled, target: Target, columns: Sequence[str]) -> Iterator[tuple[str, str, Mask]]:
    """Yield (column, value, bool [rows]) of each slice: by target, length and column."""
    yield from quality_of(target).groups(rows.gold, target)
    lengths = [len(text) + len(pair or "") for text, pair in rows.texts]
    yield from quarters(LENGTH, np.array(lengths, dtype=np.float64))
    for column in columns:
        yield from by_column(column, rows.values[column])


def compare_slices(
    rows: Labelled, candidate: Logits, served: Logits, target: Target, settings: CompareSettings
) -> list[SliceDifference]:
    """Compare the two models, whose logits are float32 [rows, labels], in every slice."""
    quality, margin = quality_of(target), settings.margin / 100
    found = list(masks(rows, target, settings.slices))
    there = {(by, value) for by, value, _ in found}
    # A frozen value is its own slice, even if it is rare or its column is split into quarters.
    frozen = [one for one in settings.frozen.items() if one not in there]
    found += [(by, value, np.array([one == value for one in rows.values[by]])) for by, value in frozen]
    contests = [quality.contest(candidate[mask], served[mask], rows.gold[mask], target) for _, _, mask in found]
    alone = [contest.worse() for contest in contests]
    worse = _holm(alone)
    inferior = _holm([contest.inferior(margin) for contest in contests])
    slices = []
    for number, ((by, value, mask), contest) in enumerate(zip(found, contests, strict=True)):
        difference = contest.difference(settings.alpha)
        firm = settings.frozen.get(by) == value
        others = quality.paired(
            served[mask],
            candidate[mask],
            rows.gold[mask],
            target,
            resamples=settings.resamples,
            confidence=1 - 2 * settings.alpha,
            seed=settings.seed,
        ).metrics
        slices.append(
            SliceDifference(
                by=by,
                value=value,
                rows=contest.rows,
                gained=contest.gained,
                lost=contest.lost,
                difference=difference,
                others={
                    name: Difference.model_validate(change.model_dump()) for name, change in list(others.items())[1:]
                },
                worse_p=worse[number],
                margin_p=inferior[number],
                non_inferior=inferior[number] <= settings.alpha,
                vetoes=difference.value < -margin
                and (worse[number] <= settings.alpha or (firm and alone[number] <= FROZEN_LEVEL * settings.alpha)),
                frozen=firm,
            )
        )
    return slices


def _holm(p_values: Sequence[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    raised: list[float] = multipletests(p_values, method="holm")[1].tolist()
    return raised
