"""What a comparison found, and the decision that follows from it, in plain words.

PROMOTE when the candidate is shown to lose less accuracy than the margin, no slice vetoes, and it is not significantly
slower than it may be. A slice vetoes by a significant loss beyond the margin, a frozen one by any loss beyond it. Else
HOLD when it is worse for sure, or when there were already as many rows as would have promoted an equally good
candidate; else NEED MORE ROWS.
"""

from collections.abc import Sequence

from pydantic import Field

from bentune.bundle.files import Frozen
from bentune.bundle.verdict import CompareSettings, Decision, Difference, Judged, Verdict
from bentune.quality.calibration import Bin
from bentune.quality.quality import Contest, Metric, PairedTest, Words
from bentune.quality.slices import Slice
from rollout.compare.latency import Ratio, Speed

SCHEMA_VERSION = 2
SHOWN_SLICES = 3
"""Of those that veto, the worst; all are in the list of slices."""


class SideReport(Frozen):
    """One side. `size_bytes` is of the files of the variant that runs, `reliability` its calibration."""

    judged: Judged
    variant: str
    provider: str
    size_bytes: int | None
    reliability: list[Bin]
    speed: Speed


class Flip(Frozen):
    """A row whose answer changed; `row` counts the rows of the file from 0. Its text is in the page only."""

    row: int
    label: str
    candidate: str
    candidate_confidence: float
    served: str
    served_confidence: float


class Flips(Frozen):
    """How many answers changed, and the most confident examples each way."""

    gained: int
    lost: int
    both_wrong: int
    gained_examples: list[Flip]
    lost_examples: list[Flip]


class LeftOut(Frozen):
    """Rows of the file that were not compared on, and by what filters the trained ones are known, in words."""

    copies: int
    trained: int
    filters: list[str]
    trusted: list[str] = Field(description="sides whose bundle is not here, so that nobody checked")


class Comparison(Frozen):
    """comparison.json: all that was found. `judged_speed` is false between a bundle and a service: HTTP costs time."""

    schema_version: int = SCHEMA_VERSION
    verdict: Verdict
    settings: CompareSettings
    metrics: list[Metric]
    test: PairedTest
    words: Words
    slices: list[Slice]
    candidate: SideReport
    served: SideReport
    latency: Ratio
    throughput: Ratio
    judged_speed: bool
    size: float | None
    flips: Flips
    left_out: LeftOut


def decide(
    contest: Contest,
    words: Words,
    slices: Sequence[Slice],
    latency: Ratio | None,
    settings: CompareSettings,
) -> tuple[Decision, list[str], int | None]:
    """Return the decision, why, and how many rows it takes in all; `latency` is None where it is not judged."""
    margin, rows = settings.margin / 100, contest.rows
    difference, test = contest.difference(settings.alpha), contest.test()
    shown = difference.low > -margin
    vetoes = _vetoes(slices, latency, words, settings)
    summary = _summary(difference, words, settings, shown=shown)
    if vetoes:
        return Decision.HOLD, [summary, *vetoes], None
    if shown:
        return Decision.PROMOTE, [summary, _no_vetoes(slices, latency, settings)], None
    if test.p_value <= 2 * settings.alpha and difference.value <= -margin:
        return (
            Decision.HOLD,
            [
                summary,
                f"it is worse for sure: it alone is wrong in {test.lost} rows, what is served alone "
                f"in {test.gained} ({test.name} {probability(test.p_value)})",
            ],
            None,
        )
    needed = contest.rows_needed(margin=margin, alpha=settings.alpha, power=settings.power)
    equally_good = f"a candidate as good as what is served is promoted with a probability of {settings.power:.0%}"
    if needed <= rows:
        return (
            Decision.HOLD,
            [summary, f"more rows are not the answer: with {needed:,} rows {equally_good}, and here are {rows:,}"],
            None,
        )
    disagreed = test.gained + test.lost
    return (
        Decision.NEED_MORE_ROWS,
        [
            summary,
            f"needs {needed:,} rows in all, and here are {rows:,}: the two disagree on which is right in "
            f"{disagreed:,} rows ({disagreed / rows:.1%}), and with so many {equally_good}",
        ],
        needed,
    )


def points(share: float) -> str:
    """A difference of accuracy as people say it."""
    return f"{100 * share:+.2f}"


def probability(value: float) -> str:
    """A p-value as people read it."""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _summary(difference: Difference, words: Words, settings: CompareSettings, *, shown: bool) -> str:
    unit = words.one_unit if settings.margin == 1 else words.unit
    return (
        f"{words.changed} {points(difference.value)} {words.unit}, at worst by {points(difference.low)} "
        f"({1 - settings.alpha:.0%} limit): a loss of {settings.margin:g} {unit} or more "
        f"is {'ruled out' if shown else 'certain' if difference.high <= -settings.margin / 100 else 'not ruled out'}"
    )


def _vetoes(slices: Sequence[Slice], latency: Ratio | None, words: Words, settings: CompareSettings) -> list[str]:
    vetoing = sorted((one for one in slices if one.vetoes), key=lambda one: one.difference.value)
    said = [
        f"{'frozen and ' * one.frozen}worse where {one.by} is {one.value}: by {points(one.difference.value)} "
        f"{words.unit} in {one.rows:,} rows ({one.lost} lost, {one.gained} gained; "
        f"exact p {probability(one.worse_p)} after Holm)"
        for one in vetoing[:SHOWN_SLICES]
    ]
    if len(vetoing) > SHOWN_SLICES:
        said.append(f"{len(vetoing) - SHOWN_SLICES} more of the {len(slices)} slices are worse")
    # Fewer pairs than this say the same way by chance too often for any interval.
    enough = latency is not None and 2.0**-latency.pairs <= settings.alpha
    if latency is not None and enough and latency.low > settings.max_latency_ratio:
        said.append(
            f"slower: its latency is {latency.value:.2f} times that of what is served, at best {latency.low:.2f}, "
            f"and {settings.max_latency_ratio:g} times are allowed"
        )
    return said


def _no_vetoes(slices: Sequence[Slice], latency: Ratio | None, settings: CompareSettings) -> str:
    speed = (
        "the latencies were not judged, as one side is a service and the other is not"
        if latency is None
        else f"its latency is {latency.value:.2f} times that of what is served ({settings.max_latency_ratio:g} allowed)"
    )
    return f"none of {len(slices)} slices is significantly worse by more than the margin, and {speed}"
