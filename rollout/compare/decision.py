"""Results of a comparison, and the decision that follows from them, with its reasons.

The decision is HOLD when a slice vetoes, or when the latency is significantly above the allowed ratio. A slice vetoes
by a significant loss beyond the margin; a frozen slice vetoes at a weaker significance. Without a veto, the decision is
PROMOTE when the candidate is shown to lose less accuracy than the margin. Otherwise it is HOLD when the candidate is
significantly worse, or when the rows would have sufficed to promote an equally good candidate. In all other cases it is
NEED MORE ROWS.
"""

from collections.abc import Sequence

from pydantic import Field

from bentune.bundle.files import Frozen
from bentune.bundle.verdict import CompareSettings, Decision, Difference, Judged, Verdict
from bentune.quality.quality import Contest, Metric, PairedTest, Words
from bentune.quality.slices import SliceDifference
from bentune.quality.statistics.calibration import Bin
from rollout.compare.latency import Ratio, Speed

SCHEMA_VERSION = 2
SHOWN_SLICES = 3
"""Most vetoing slices that a reason names, worst first; the report lists all."""


class SideReport(Frozen):
    """Report on one side.

    `size_bytes` is the size of the running variant's files, `reliability` the calibration curve.
    """

    judged: Judged
    variant: str
    provider: str
    size_bytes: int | None
    reliability: list[Bin]
    speed: Speed


class Flip(Frozen):
    """Row whose prediction changed; `row` is its number in the file, from 0.

    Its text is only in the page.
    """

    row: int
    label: str
    candidate: str
    candidate_confidence: float | None
    served: str
    served_confidence: float | None


class Flips(Frozen):
    """Counts of changed predictions, and the most confident examples of gains and losses."""

    gained: int
    lost: int
    both_wrong: int
    gained_examples: list[Flip]
    lost_examples: list[Flip]


class LeftOut(Frozen):
    """Counts of excluded rows, and descriptions of the filters that identify trained rows."""

    copies: int
    trained: int
    filters: list[str]
    trusted: list[str] = Field(description="sides whose bundle is not in the store, so that no row was checked")


class Comparison(Frozen):
    """Content of comparison.json.

    `judged_speed` is false between a bundle and a service, because HTTP costs time.
    """

    schema_version: int = SCHEMA_VERSION
    verdict: Verdict
    settings: CompareSettings
    metrics: list[Metric]
    test: PairedTest
    words: Words
    slices: list[SliceDifference]
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
    slices: Sequence[SliceDifference],
    latency: Ratio | None,
    settings: CompareSettings,
) -> tuple[Decision, list[str], int | None]:
    """Return the decision, its reasons, and the total rows needed.

    `latency` is None where it is not judged.
    """
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
                f"it is significantly worse: it alone is wrong in {test.lost} rows, the served model alone "
                f"in {test.gained} ({test.name} {probability(test.p_value)})",
            ],
            None,
        )
    needed = contest.rows_needed(margin=margin, alpha=settings.alpha, power=settings.power)
    equally_good = f"a candidate as good as what is served is promoted with a probability of {settings.power:.0%}"
    if needed <= rows:
        return (
            Decision.HOLD,
            [summary, f"more rows do not help: with {needed:,} rows {equally_good}, and here are {rows:,}"],
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
    """Format a difference of accuracy in points."""
    return f"{100 * share:+.2f}"


def probability(value: float) -> str:
    """Format a p-value."""
    return "< 0.0001" if value < 1e-4 else f"= {value:.2g}"


def _summary(difference: Difference, words: Words, settings: CompareSettings, *, shown: bool) -> str:
    unit = words.one_unit if settings.margin == 1 else words.unit
    return (
        f"{words.changed} {points(difference.value)} {words.unit}, at worst by {points(difference.low)} "
        f"({1 - settings.alpha:.0%} limit): a loss of {settings.margin:g} {unit} or more "
        f"is {'ruled out' if shown else 'certain' if difference.high <= -settings.margin / 100 else 'not ruled out'}"
    )


def _vetoes(
    slices: Sequence[SliceDifference], latency: Ratio | None, words: Words, settings: CompareSettings
) -> list[str]:
    vetoing = sorted((one for one in slices if one.vetoes), key=lambda one: one.difference.value)
    said = [
        f"{'frozen and ' * one.frozen}worse where {one.by} is {one.value}: by {points(one.difference.value)} "
        f"{words.unit} in {one.rows:,} rows ({one.lost} lost, {one.gained} gained; "
        f"exact p {probability(one.worse_p)} after Holm)"
        for one in vetoing[:SHOWN_SLICES]
    ]
    if len(vetoing) > SHOWN_SLICES:
        said.append(f"{len(vetoing) - SHOWN_SLICES} more of the {len(slices)} slices are worse")
    # Fewer pairs agree by chance too often for an interval at this level.
    enough = latency is not None and 2.0**-latency.pairs <= settings.alpha
    if latency is not None and enough and latency.low > settings.max_latency_ratio:
        said.append(
            f"slower: its latency is {latency.value:.2f} times that of what is served, at best {latency.low:.2f}, "
            f"and {settings.max_latency_ratio:g} times are allowed"
        )
    return said


def _no_vetoes(slices: Sequence[SliceDifference], latency: Ratio | None, settings: CompareSettings) -> str:
    speed = (
        "the latencies were not judged, as one side is a service and the other is not"
        if latency is None
        else f"its latency is {latency.value:.2f} times that of what is served ({settings.max_latency_ratio:g} allowed)"
    )
    return f"none of {len(slices)} slices is significantly worse by more than the margin, and {speed}"
