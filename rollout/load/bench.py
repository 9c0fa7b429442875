"""Benchmark of a server under load, or of two servers in turns on the same machine."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from bentune.bundle.errors import BentuneError
from bentune.bundle.hardware import Cpu
from rollout.load.generator import NO_ANSWER, OK, Body, Load, Progress, closed_loop, open_loop, run
from rollout.load.latency import LoadSummary
from rollout.load.slo import Objective
from rollout.server.scrape import MetricsReading, ServerSide, between, read_metrics, slots_of
from rollout.server.target import Served

SCHEMA_VERSION = 1
ROUND_S = 3.0
ROUND_WARMUP_S = 0.5
OVERLOADED = {429, 503}


class ProgressReporter(Protocol):
    """Display of progress."""

    def progress(self, description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a progress bar; the yielded function sets the steps done of `total`."""
        ...


class ReportModel(BaseModel):
    """Part of the report; unknown keys are errors, and values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Pattern(ReportModel):
    """Pattern of a load: `clients` in a closed loop, or `rate` requests a second in an open one."""

    clients: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)
    seconds: float = Field(gt=0)
    warmup_s: float = Field(default=0.0, ge=0)
    seed: int = 0


class ServerMeasurement(ReportModel):
    """Measurement of one server.

    `model`, from /info, and `inside` are None for another product.
    """

    server: str
    model: dict[str, JsonValue] | None
    summary: LoadSummary
    inside: ServerSide | None


class ServerRatio(ReportModel):
    """Ratio of the first server to the second: over all rounds, and the extremes of any pair."""

    value: float | None
    low: float | None
    high: float | None


class ObjectiveVerdict(ReportModel):
    """Verdict on an objective, with the latency that it bounds in milliseconds."""

    objective: Objective
    measured_ms: float | None
    held: bool


class BenchReport(ReportModel):
    """Content of bench.json: the measurements and the machine; `cpu` is that of the generator."""

    schema_version: int = SCHEMA_VERSION
    created_at: datetime
    pattern: Pattern
    inputs_per_request: int
    bodies: int
    servers: list[ServerMeasurement]
    ratios: dict[str, ServerRatio] = {}
    objective: ObjectiveVerdict | None = None
    cpu: Cpu


@dataclass(frozen=True)
class Rounds:
    """Loads on one server, and its metrics before and after each."""

    served: Served
    loads: list[Load]
    readings: list[tuple[MetricsReading | None, MetricsReading | None]]

    @property
    def whole(self) -> Load:
        """Return all rounds as one load."""
        return Load.joined(self.loads)

    def measured(self) -> ServerMeasurement:
        """Summarize the rounds. Raises BentuneError when no request was answered 200."""
        whole = self.whole
        if not whole.ok.any():
            counts = ", ".join(f"{count} times {status}" for status, count in whole.statuses.items()) or "none sent"
            raise BentuneError(
                f"{self.served.label}: not one request was answered 200 ({counts}); see the server's log"
            )
        return ServerMeasurement(
            server=self.served.label,
            model=model_of(self.served.info),
            summary=LoadSummary.of(whole),
            inside=between(self.readings, slots_of(self.served.info)),
        )


def require_answer(served: Served, body: Body) -> None:
    """Send one request.

    Raises BentuneError when the server does not answer or refuses it.
    """
    load = run(closed_loop(served.target, [body], clients=1, seconds=served.target.timeout_s, requests=1))
    status = int(load.status[0])
    where = f"{served.target.url}{served.target.path}"
    if status == NO_ANSWER:
        raise BentuneError(f"{where}: no answer; is the server up at this address?")
    if status != OK and status not in OVERLOADED:
        raise BentuneError(
            f"{where}: answered {status} to one request with {body.inputs} inputs; check the path, "
            "--batch, and whether the model takes texts or pairs (--pair-column)"
        )


def measure(served: Served, bodies: Sequence[Body], pattern: Pattern, report: ProgressReporter) -> Rounds:
    """Load one server and measure it."""
    total = pattern.warmup_s + pattern.seconds
    with report.progress(f"{served.label}", round(total)) as bar:
        load, readings = _one_round(served, bodies, pattern, lambda seconds: bar(round(min(seconds, total))))
        bar(round(total))
    return Rounds(served, [load], [readings])


def compare(
    first: Served, second: Served, bodies: Sequence[Body], pattern: Pattern, report: ProgressReporter
) -> tuple[Rounds, Rounds]:
    """Load two servers in turns, A B B A and so on, each for `pattern.seconds` in all.

    Both rounds of a pair send the same bodies, in an open loop at the same times.
    """
    pairs = max(2, round(pattern.seconds / ROUND_S))
    rounds = (Rounds(first, [], []), Rounds(second, [], []))
    one_s = pattern.seconds / pairs
    total = 2 * (pattern.warmup_s + pairs * (one_s + ROUND_WARMUP_S))
    done = 0.0
    with report.progress(f"{first.label} and {second.label} in turns", round(total)) as bar:

        def tell(seconds: float) -> None:
            bar(round(min(done + seconds, total)))

        for each in rounds:
            if pattern.warmup_s:
                _one_round(
                    each.served, bodies, pattern.model_copy(update={"seconds": pattern.warmup_s, "warmup_s": 0.0}), tell
                )
            done += pattern.warmup_s
        for pair in range(pairs):
            start = pair * len(bodies) // pairs
            part = pattern.model_copy(
                update={"seconds": one_s, "warmup_s": ROUND_WARMUP_S, "seed": pattern.seed + pair}
            )
            # A drift of the machine then affects both alike.
            for each in rounds if pair % 2 == 0 else rounds[::-1]:
                load, readings = _one_round(each.served, [*bodies[start:], *bodies[:start]], part, tell)
                each.loads.append(load)
                each.readings.append(readings)
                done += one_s + ROUND_WARMUP_S
    return rounds


def ratios(first: Rounds, second: Rounds) -> dict[str, ServerRatio]:
    """Divide throughput and latencies of the first server by those of the second."""
    whole = (_numbers(first.whole), _numbers(second.whole))
    pairs = [(_numbers(a), _numbers(b)) for a, b in zip(first.loads, second.loads, strict=True)]
    found = {}
    for name in whole[0]:
        each = [ratio for a, b in pairs if (ratio := _divided(a[name], b[name])) is not None]
        found[name] = ServerRatio(
            value=_divided(whole[0][name], whole[1][name]),
            low=min(each, default=None),
            high=max(each, default=None),
        )
    return found


def judge(objective: Objective, measured: ServerMeasurement) -> ObjectiveVerdict:
    """Judge a server by an objective."""
    latency = measured.summary.latency_ms
    return ObjectiveVerdict(
        objective=objective, measured_ms=objective.measured_ms(latency), held=objective.held(latency)
    )


def now() -> datetime:
    """Return the present time for a report, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def model_of(info: dict[str, Any] | None) -> dict[str, JsonValue] | None:
    """Select the identity and the plan of the model from /info."""
    if info is None:
        return None
    return {key: info.get(key) for key in ("name", "version", "digest", "plan")}


def _one_round(
    served: Served, bodies: Sequence[Body], pattern: Pattern, progress: Progress
) -> tuple[Load, tuple[MetricsReading | None, MetricsReading | None]]:
    before = read_metrics(served.target.url)
    load = run(load_of(served, bodies, pattern, progress))
    return load, (before, read_metrics(served.target.url))


async def load_of(served: Served, bodies: Sequence[Body], pattern: Pattern, progress: Progress | None = None) -> Load:
    """Run the load that a pattern describes."""
    if pattern.rate is not None:
        return await open_loop(
            served.target,
            bodies,
            rate=pattern.rate,
            seconds=pattern.seconds,
            warmup_s=pattern.warmup_s,
            seed=pattern.seed,
            progress=progress,
        )
    return await closed_loop(
        served.target,
        bodies,
        clients=pattern.clients or 1,
        seconds=pattern.seconds,
        warmup_s=pattern.warmup_s,
        progress=progress,
    )


def _numbers(load: Load) -> dict[str, float | None]:
    latency = LoadSummary.of(load).latency_ms
    return {
        "requests_per_s": load.requests_per_s,
        "inputs_per_s": load.inputs_per_s,
        "p50": latency.p50,
        "p90": latency.p90,
        "p99": latency.p99,
        "p99.9": latency.p99_9,
    }


def _divided(first: float | None, second: float | None) -> float | None:
    return None if first is None or not second else first / second
