"""Tables of a benchmark's and a capacity search's results."""

from rich.markup import escape
from rich.table import Table

from rollout.load.bench import BenchReport, ServerMeasurement
from rollout.load.generator import NO_ANSWER
from rollout.load.knee import Capacity
from rollout.load.latency import Latency

NOT_SAID = "n/a"
LATE_MS = 10.0
BUSY = 0.8


def bench_table(report: BenchReport) -> Table:
    """Build the table of a benchmark: a column a server, and the ratio of two."""
    table = Table(title=title(report))
    table.add_column("")
    for measured in report.servers:
        table.add_column(escape(measured.server), justify="right")
    if report.ratios:
        table.add_column("first / second [lowest, highest round]", justify="right")
    columns = [_rows(measured) for measured in report.servers]
    # Only one of two servers may have metrics.
    for name in columns[0] | columns[-1]:
        ratio = report.ratios.get(_RATIO_OF.get(name, ""))
        compared = [f"{_shown(ratio.value)}  [{_shown(ratio.low)}, {_shown(ratio.high)}]" if ratio else ""]
        table.add_row(name, *(rows.get(name, NOT_SAID) for rows in columns), *(compared if report.ratios else []))
    return table


def title(report: BenchReport) -> str:
    """Describe the load of the servers."""
    pattern = report.pattern
    loop = (
        f"open loop, {pattern.rate:g} requests/s"
        if pattern.rate is not None
        else f"closed loop, {pattern.clients} client{'s' * (pattern.clients != 1)}"
    )
    inputs = f"{report.inputs_per_request} input{'s' * (report.inputs_per_request > 1)} a request"
    return f"{loop}, {inputs}, {pattern.seconds:g} s after {pattern.warmup_s:g} s of warm-up"


def warnings(report: BenchReport) -> list[str]:
    """List the reasons to doubt the numbers."""
    said = []
    for measured in report.servers:
        summary, (_, latest_ms) = measured.summary, measured.summary.generator_lag_ms
        if latest_ms > LATE_MS:
            said.append(
                f"{measured.server}: the generator sent a request {latest_ms:.0f} ms late, which its latency includes; "
                "give it more CPU, or its own machine"
            )
        if summary.generator_cpu > BUSY:
            said.append(
                f"{measured.server}: the generator took {summary.generator_cpu:.0%} of a core; use a lower rate"
            )
        if summary.latency_ms.answers < 1000:
            said.append(
                f"{measured.server}: {summary.latency_ms.answers} answers are too few for p99.9; give more --seconds"
            )
    return said


def capacity_table(capacity: Capacity) -> Table:
    """Build the table of a capacity with its latencies and signals."""
    table = Table(show_header=False, title=f"capacity at {capacity.objective}")
    table.add_row("rate per pod", f"{capacity.rate_per_pod:.1f} requests/s, {capacity.inputs_per_second:.1f} inputs/s")
    table.add_row("latency p50 / p90 / p99 / p99.9", f"{_latency(capacity.latency_ms)} ms")
    signal = capacity.signal
    table.add_row("slots busy", f"{signal.slots_busy:.0%} on average" if signal else NOT_SAID)
    table.add_row("queue", f"{signal.queue_tokens:.0f} tokens on average" if signal else NOT_SAID)
    table.add_row("ceiling (closed loop)", f"{capacity.ceiling_requests_per_s:.1f} requests/s")
    table.add_row("rates tried", str(len(capacity.trials)))
    return table


_RATIO_OF = {
    "requests/s": "requests_per_s",
    "inputs/s": "inputs_per_s",
    "p50 ms": "p50",
    "p90 ms": "p90",
    "p99 ms": "p99",
    "p99.9 ms": "p99.9",
}


def _rows(measured: ServerMeasurement) -> dict[str, str]:
    summary = measured.summary
    latency = summary.latency_ms
    rows = {
        "requests/s": f"{summary.requests_per_s:.1f}",
        "inputs/s": f"{summary.inputs_per_s:.1f}",
        "p50 ms": _shown(latency.p50),
        "p90 ms": _shown(latency.p90),
        "p99 ms": _shown(latency.p99),
        "p99.9 ms": _shown(latency.p99_9),
        "max ms": _shown(latency.max),
    }
    rows |= {f"percentiles ms, {name}": _latency(group) for name, group in summary.groups.items()}
    rows["statuses"] = ", ".join(
        f"{count} x {'no answer' if status == str(NO_ANSWER) else status}" for status, count in summary.statuses.items()
    )
    if summary.retry_after_s is not None:
        rows["Retry-After (median)"] = f"{summary.retry_after_s:g} s"
    rows |= _inside(measured)
    rows["generator CPU, of a core"] = f"{summary.generator_cpu:.0%}"
    return rows


def _inside(measured: ServerMeasurement) -> dict[str, str]:
    """Return the rows of the server's own metrics; none for another product."""
    inside = measured.inside
    if inside is None:
        return {}
    return {
        "inputs a batch": _shown(inside.batch_requests),
        "tokens a batch": _shown(inside.batch_tokens),
        "padding in a batch": _share(inside.padding),
        "queue ms": _shown(inside.queue_ms),
        "inference ms": _shown(inside.inference_ms),
        "slots computing, at least": _share(inside.utilization),
    }


def _latency(latency: Latency) -> str:
    return " / ".join(map(_shown, (latency.p50, latency.p90, latency.p99, latency.p99_9)))


def _shown(value: float | None) -> str:
    return NOT_SAID if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _share(value: float | None) -> str:
    return NOT_SAID if value is None else f"{value:.1%}"
