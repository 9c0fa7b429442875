"""Report of an overload: useful throughput, kept deadlines, accuracy of Retry-After."""

import numpy as np
from pydantic import computed_field
from rich.table import Table

from bentune.bundle.arrays import Floats
from rollout.load.bench import ReportModel
from rollout.load.generator import NO_ANSWER, Load
from rollout.load.latency import Latency

REFUSED = 429
MIN_USEFUL = 0.9
MIN_KEPT = 0.999
RIGHT_WITHIN = 2.0
MIN_RIGHT = 0.95
MAX_GROWTH = 1.05
MAX_RECOVERED = 1.2
MAX_COMPUTED = 0.02
"""Largest share of disconnected clients' texts that are computed: a slot does not stop a batch that it began."""

MIN_SAMPLES_S = 1.0
"""Shortest judged drain time, in seconds: Retry-After is in whole seconds, and at least one."""


class Promise(ReportModel):
    """One promise: the measured value, its bound as text, and the result."""

    name: str
    measured: str
    bound: str
    held: bool


class RetryHonesty(ReportModel):
    """Retry-After of refused requests against the time until all requests accepted before them were answered.

    `ratio` has the 5th, 50th and 95th percentile of advertised / true seconds. `right_share` is the share within a
    factor of RIGHT_WITHIN.
    """

    refused: int
    advertised_s: float
    true_s: float
    ratio: tuple[float, float, float]
    right_share: float


class Memory(ReportModel):
    """Resident memory of the worker in MB: before the overload, once the queue was full, at the peak, and after.

    The memory of a full queue and its connections is bounded and reused. A leak shows as growth after it.
    """

    before_mb: float
    once_full_mb: float
    peak_mb: float
    after_mb: float


class Disconnects(ReportModel):
    """Disconnected clients: the number that the server counted, and the texts computed for them."""

    leavers: int
    counted: int
    computed_for_nobody: int


class Saturation(ReportModel):
    """Cores that the generator, the server's event loop, and all of the worker (its event loop included) kept busy.

    `others` are the cores of all other processes, the machine's host included. If it is large, the service was not
    alone.
    """

    generator: float
    event_loop: float
    worker: float
    others: float


class Overload(ReportModel):
    """All measurements; `queue_tokens` is None with the service's own bound."""

    tag: str
    cores: int
    multiple: float
    seconds: float
    deadline_ms: int
    queue_tokens: int | None
    capacity_per_s: float
    useful_per_s: float
    kept_share: float | None
    failed: int
    statuses: dict[str, int]
    latency_ms: Latency
    retry_after: RetryHonesty | None
    memory: Memory
    normal_p50_ms: float
    recovered_p50_ms: float
    disconnects: Disconnects
    at_capacity: Saturation
    overloaded: Saturation
    generator_lag_p99_ms: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def useful_share(self) -> float:
        """Answers within their deadline, relative to the capacity."""
        return self.useful_per_s / self.capacity_per_s

    @computed_field  # type: ignore[prop-decorator]
    @property
    def useful_share_of_cores_left(self) -> float:
        """`useful_share` relative to the capacity of the cores that the generator left."""
        left = (self.cores - self.overloaded.generator) / (self.cores - self.at_capacity.generator)
        return self.useful_share / left

    @computed_field  # type: ignore[prop-decorator]
    @property
    def checks(self) -> list[Promise]:
        """Promises of the service."""
        retry, memory, gone = self.retry_after, self.memory, self.disconnects
        recovered = self.recovered_p50_ms / self.normal_p50_ms
        kept = self.kept_share
        return [
            _at_least("useful throughput / capacity", self.useful_share, MIN_USEFUL),
            _at_least("accepted that kept their deadline", kept, MIN_KEPT),
            Promise(name="5xx and no answer", measured=str(self.failed), bound="0", held=self.failed == 0),
            _at_least(
                f"Retry-After within a factor of {RIGHT_WITHIN:g}", retry.right_share if retry else None, MIN_RIGHT
            ),
            _at_most("memory at most / once the queue was full", memory.peak_mb / memory.once_full_mb, MAX_GROWTH),
            _at_most("p50 after / before", recovered, MAX_RECOVERED),
            Promise(
                name="computed for clients that left",
                measured=f"{gone.computed_for_nobody} texts of {gone.leavers}, {gone.counted} counted as gone",
                bound=f"<= {MAX_COMPUTED:.0%}",
                # A disconnected client's request may have been refused before the server noticed.
                held=gone.computed_for_nobody <= MAX_COMPUTED * gone.leavers and gone.counted > 0,
            ),
        ]


def useful_per_s(load: Load, deadline_s: float) -> float:
    """Return the responses 200 per second within the deadline and the load's window."""
    useful = load.ok & (load.latency_s <= deadline_s) & (load.started_s + load.latency_s <= load.seconds)
    return float(useful.sum()) / load.seconds


def kept_share(load: Load, deadline_s: float) -> float | None:
    """Return the share of accepted requests that were answered 200 in time.

    It is None if all requests were refused.
    """
    accepted = load.status != REFUSED
    kept = load.ok & (load.latency_s <= deadline_s)
    return float(kept.sum() / accepted.sum()) if accepted.any() else None


def failed(load: Load) -> int:
    """Count the requests that were answered 5xx, or not at all."""
    return int(((load.status >= 500) | (load.status == NO_ANSWER)).sum())


def drained_after_s(load: Load) -> tuple[Floats, Floats]:
    """Return the advertised and the true seconds of each refusal with a Retry-After.

    The true seconds are from the refusal to the last answer among the requests that were accepted before it.
    """
    refused = (load.status == REFUSED) & ~np.isnan(load.retry_after_s)
    sent = load.started_s + load.lag_s
    finished = load.started_s + load.latency_s
    order = np.argsort(sent[load.ok])
    # All requests that were accepted until a given time are answered by the largest finish so far.
    accepted, last = sent[load.ok][order], np.maximum.accumulate(finished[load.ok][order])
    ahead = np.searchsorted(accepted, sent[refused], side="right") - 1
    judged = ahead >= 0
    true_s = last[ahead[judged]] - finished[refused][judged]
    return load.retry_after_s[refused][judged], true_s


def retry_honesty(load: Load) -> RetryHonesty | None:
    """Compare Retry-After with the true seconds; return None without a judged refusal."""
    advertised, true_s = drained_after_s(load)
    long_enough = true_s >= MIN_SAMPLES_S
    advertised, true_s = advertised[long_enough], true_s[long_enough]
    if not len(true_s):
        return None
    ratio = advertised / true_s
    low, middle, high = (float(value) for value in np.percentile(ratio, [5, 50, 95]))
    return RetryHonesty(
        refused=len(true_s),
        advertised_s=float(np.median(advertised)),
        true_s=float(np.median(true_s)),
        ratio=(low, middle, high),
        right_share=float(((ratio <= RIGHT_WITHIN) & (ratio >= 1 / RIGHT_WITHIN)).mean()),
    )


def table_of(result: Overload) -> Table:
    """Return the table: a row for each promise, then the other measurements."""
    queue = "the service's own" if result.queue_tokens is None else f"{result.queue_tokens} tokens"
    table = Table(
        title=f"{result.multiple:g} x capacity for {result.seconds:g} s, {result.deadline_ms} ms, queue {queue}"
    )
    for column in ("", "measured", "bound", ""):
        table.add_column(column)
    for check in result.checks:
        table.add_row(check.name, check.measured, check.bound, "[green]held[/]" if check.held else "[red]missed[/]")
    table.add_section()
    memory, retry = result.memory, result.retry_after
    rows = {
        "capacity, useful": f"{result.capacity_per_s:.1f}, {result.useful_per_s:.1f} requests/s",
        "useful / capacity of the cores left": f"{result.useful_share_of_cores_left:.2f}",
        "statuses": ", ".join(f"{count} x {status}" for status, count in result.statuses.items()),
        "latency p50 / p99 / max ms": _ms(result.latency_ms.p50, result.latency_ms.p99, result.latency_ms.max),
        "Retry-After, true s": f"{retry.advertised_s:.1f}, {retry.true_s:.1f}" if retry else "n/a",
        "Retry-After / true p5 p50 p95": " ".join(f"{value:.2f}" for value in retry.ratio) if retry else "n/a",
        "memory MB before, once full, most, after": (
            f"{memory.before_mb:.0f}, {memory.once_full_mb:.0f}, {memory.peak_mb:.0f}, {memory.after_mb:.0f}"
        ),
        "p50 ms before, after": _ms(result.normal_p50_ms, result.recovered_p50_ms),
        "cores at capacity": _cores(result.at_capacity),
        "cores overloaded": _cores(result.overloaded),
        "generator late p99": f"{result.generator_lag_p99_ms:.1f} ms",
    }
    for name, value in rows.items():
        table.add_row(name, value, "", "")
    return table


def _at_least(name: str, measured: float | None, bound: float) -> Promise:
    held = measured is not None and measured >= bound
    return Promise(name=name, measured=_shown(measured), bound=f">= {bound:g}", held=held)


def _at_most(name: str, measured: float, bound: float) -> Promise:
    return Promise(name=name, measured=_shown(measured), bound=f"<= {bound:g}", held=measured <= bound)


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _ms(*values: float | None) -> str:
    return " / ".join("n/a" if value is None else f"{value:.1f}" for value in values)


def _cores(one: Saturation) -> str:
    ours = f"generator {one.generator:.2f}, event loop {one.event_loop:.2f}, worker in all {one.worker:.2f}"
    return f"{ours}, others {one.others:.2f}"
