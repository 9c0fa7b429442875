"""Tables of a comparison: the verdict and the deciding numbers first."""

from rich.markup import escape
from rich.table import Table

from bentune.bundle.verdict import Decision, Difference
from bentune.quality.quality import Metric
from bentune.quality.slices import SliceDifference
from rollout.compare.decision import Comparison, SideReport, points, probability
from rollout.compare.latency import Ratio

COLORS = {Decision.PROMOTE: "green", Decision.HOLD: "red", Decision.NEED_MORE_ROWS: "yellow"}
NOT_SAID = "n/a"
MEGABYTE = 1e6


def tables(found: Comparison) -> list[Table | str]:
    """Build the tables in order: sides, metrics, slices, and last the verdict."""
    return [_metrics(found), _slices(found), *verdict_lines(found)]


def verdict_lines(found: Comparison) -> list[str]:
    """Return the decision and its reasons, a line each."""
    verdict = found.verdict
    color = COLORS[verdict.decision]
    head = (
        f"[bold {color}]{verdict.decision}[/]  {escape(verdict.candidate.tag)} against {escape(verdict.served.tag)} "
        f"on {verdict.rows:,} rows"
    )
    return [
        head,
        *(f"  {escape(plain(reason))}" for reason in verdict.reasons),
        *(f"  {line}" for line in map(escape, notes(found))),
    ]


def notes(found: Comparison) -> list[str]:
    """Return remarks on the rows."""
    said = []
    if found.words.note:
        said.append(found.words.note)
    if found.left_out.copies:
        said.append(f"left out: {found.left_out.copies:,} rows with the text of an earlier row")
    if found.left_out.trained:
        said.append(f"left out: {found.left_out.trained:,} rows that a side was trained on")
    said += [f"trained rows are identified by a filter: that of {line}" for line in found.left_out.filters]
    if found.verdict.earlier:
        times = f"{found.verdict.earlier} time{'s' * (found.verdict.earlier > 1)}"
        said.append(f"this candidate was compared {times} before; each has its own chance to promote a bad one")
    return said


def numbers(found: Comparison) -> list[tuple[str, str, str, str]]:
    """Return (name, candidate, served, change) of all numbers but the slices."""
    test, new, old = found.test, found.candidate, found.served
    size = f"{found.size:.2f} times" if found.size else NOT_SAID
    p = f"{test.name} {probability(test.p_value)}"
    speeds = f"{new.speed.texts_per_s:.1f}", f"{old.speed.texts_per_s:.1f}"
    return [
        *(row for metric in found.metrics for row in _metric(metric, found)),
        (found.words.alone, f"{test.gained:,} rows", f"{test.lost:,} rows", p),
        ("wrong in two ways", "", "", f"{found.flips.both_wrong:,} rows"),
        ("latency of one text, p50 / p95", _latency(new), _latency(old), _ratio(found.latency)),
        ("texts a second", *speeds, _ratio(found.throughput)),
        ("size of the model", _size(new), _size(old), size),
        ("runs as", _runs_as(new), _runs_as(old), ""),
    ]


def slice_numbers(one: SliceDifference) -> tuple[str, str, str, str, str, str]:
    """Return (slice, rows, gained and lost, difference, p, result) of one slice."""
    says = "vetoes" if one.vetoes else "not worse" if one.non_inferior else "says little"
    return (
        f"{one.by}: {one.value}",
        f"{one.rows:,}",
        f"+{one.gained} −{one.lost}",
        _points(one.difference),
        probability(one.worse_p).removeprefix("= "),
        says,
    )


def _metrics(found: Comparison) -> Table:
    table = Table(title=f"{found.verdict.rows:,} rows, {found.verdict.confidence:.0%} intervals")
    for name in ("", "candidate", "served", "change"):
        table.add_column(name, justify="left" if not name else "right")
    for row in numbers(found):
        table.add_row(*map(escape, row))
    return table


def _slices(found: Comparison) -> Table:
    table = Table("slice", title="accuracy in parts of the rows")
    for name in ("rows", "right / wrong alone", "points", "worse, p (Holm)", ""):
        table.add_column(name, justify="right")
    for one in found.slices:
        table.add_row(*(escape(plain(cell)) for cell in slice_numbers(one)), style="red" if one.vetoes else "")
    return table


def _metric(metric: Metric, found: Comparison) -> list[tuple[str, str, str, str]]:
    difference = metric.difference
    if metric.name == found.verdict.metric:
        # The interval of the test that decides, and the bootstrap's beside it.
        unit, form = found.words.unit, ".2%" if metric.share else ".4f"
        row = (
            metric.name,
            f"{metric.candidate:{form}}",
            f"{metric.served:{form}}",
            f"{_points(found.verdict.difference)} {unit}",
        )
        by_bootstrap = f"{_points(difference)} {unit}" if metric.share else _plain(difference)
        return [row, ("  by bootstrap", "", "", by_bootstrap)]
    return [(metric.name, f"{metric.candidate:.4f}", f"{metric.served:.4f}", _plain(difference))]


def _plain(difference: Difference) -> str:
    return f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _runs_as(side: SideReport) -> str:
    return f"{side.variant}, {side.provider.removesuffix('ExecutionProvider')}"


def _points(difference: Difference) -> str:
    return f"{points(difference.value)} {_limits(difference)}"


def _limits(difference: Difference) -> str:
    return f"[{points(difference.low)}, {points(difference.high)}]"


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.value:.2f} times [{ratio.low:.2f}, {ratio.high:.2f}]"


def _latency(side: SideReport) -> str:
    return f"{side.speed.p50_ms:.1f} / {side.speed.p95_ms:.1f} ms"


def _size(side: SideReport) -> str:
    return f"{side.size_bytes / MEGABYTE:.1f} MB" if side.size_bytes else NOT_SAID


def plain(text: str) -> str:
    """Remove control characters and markup: slices are named by values of the rows."""
    return "".join(character if character.isprintable() else "�" for character in text)
