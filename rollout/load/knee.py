"""Search for a server's capacity: the highest rate at which it holds a latency objective.

A closed loop finds the ceiling, a bisection over open loops finds the rate, and a longer run confirms it.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
from pydantic import AliasChoices, Field, JsonValue

from bentune.bundle.errors import GateError
from bentune.bundle.hardware import Cpu
from rollout.load.bench import Pattern, ReportModel, load_of, model_of, now
from rollout.load.generator import Body, Load, run
from rollout.load.latency import Latency
from rollout.load.slo import Objective
from rollout.server.scrape import SAMPLE_EVERY_S, MetricsReading, Signal, sample, signal_of, slots_of
from rollout.server.target import Served

SCHEMA_VERSION = 1
CEILING_CLIENTS = 64
RESOLUTION = 0.03
"""Largest ratio, minus 1, of the lowest rate that failed to the highest that held, at which the search ends."""
LOWEST = 1 / 64
"""Share of the ceiling below which no rate is tried: the objective is out of reach."""
STEP_DOWN = 0.95
MIN_STEP_S = 1.0
CONFIRMATIONS = 10
MIN_OK_SHARE = 0.99
MIN_KEPT_UP = 0.95
FEW = 3
"""Requests that may be under way by chance."""
MAX_LAG_SHARE = 0.25
"""Share of the objective: a larger lag is reported, because the latency is then partly the generator's."""
TAIL_REQUESTS = 3
"""Requests that must lie above the percentile for it to be meaningful."""
GROWTH = 10.0
MAX_STRETCH = 5.0


class RateTrial(ReportModel):
    """Trial of one rate; `missed` is the reason why the objective does not hold, empty when it does."""

    rate: float
    seconds: float
    requests_per_s: float
    ok_share: float
    latency_ms: Latency
    missed: str

    @property
    def holds(self) -> bool:
        """Return true if the objective held at this rate."""
        return not self.missed


class Capacity(ReportModel):
    """Content of capacity.json: the load that one pod holds within an objective.

    `rate_per_pod` is in requests a second, of `inputs_per_request` inputs each. `signal` is what an autoscaler
    reads from the pod's metrics at that rate, None for another product. `cpu` is the machine of the generator, and
    the pod's if `same_machine`. `trials` are all rates tried, in order, the confirming runs last. `startup_s` is
    the startup time and `memory_bytes` the peak of resident memory, both None for a server that the search did
    not start.
    """

    schema_version: int = SCHEMA_VERSION
    created_at: datetime
    server: str
    model: dict[str, JsonValue] | None
    objective: Objective
    rate_per_pod: float = Field(gt=0)
    inputs_per_request: int = Field(ge=1, validation_alias=AliasChoices("inputs_per_request", "texts_per_request"))
    inputs_per_second: float = Field(validation_alias=AliasChoices("inputs_per_second", "texts_per_second"))
    latency_ms: Latency
    signal: Signal | None
    ceiling_requests_per_s: float
    cpu: Cpu
    same_machine: bool
    trials: list[RateTrial]
    startup_s: float | None = Field(default=None, gt=0)
    memory_bytes: int | None = Field(default=None, gt=0)


def search(holds: Callable[[float], bool], ceiling: float) -> float | None:
    """Bisect for the highest rate that holds, to RESOLUTION.

    Returns None if no rate above LOWEST times `ceiling` holds. `holds` must be true below some rate and false above it.
    A rate that does not hold is tried a second time, because disturbances only make a measurement worse.
    """
    low, high = 0.0, None
    rate = 0.8 * ceiling
    # The upper bound ends the search if `holds` never turns false.
    while rate >= LOWEST * ceiling and rate <= ceiling / LOWEST:
        if holds(rate) or holds(rate):
            low = rate
        else:
            high = rate
        if high is None:
            rate = low * 1.25
        elif low == 0.0:
            rate = high / 2
        elif high / low <= 1 + RESOLUTION:
            return low
        else:
            rate = (low + high) / 2
    return low or None


def confirm(holds: Callable[[float], bool], rate: float) -> float | None:
    """Find the first of `rate` and a few lower rates that holds in a longer run.

    Returns None if none of them holds.
    """
    for _ in range(CONFIRMATIONS):
        if holds(rate):
            return rate
        rate *= STEP_DOWN
    return None


def find_knee(
    served: Served,
    bodies: Sequence[Body],
    objective: Objective,
    pattern: Pattern,
    *,
    cpu: Cpu,
    tell: Callable[[str], None],
) -> Capacity:
    """Find the capacity of a server.

    `pattern.seconds` is the length of the confirming run; a step takes at least a quarter of it. Raises GateError when
    no rate holds the objective.
    """
    step = pattern.model_copy(update={"seconds": max(pattern.seconds / 4, MIN_STEP_S)})
    alone = Latency.of(run(load_of(served, bodies, step.model_copy(update={"clients": 1, "rate": None}))))
    if alone.p50 is not None and alone.p50 > objective.limit_ms:
        raise GateError(
            str(objective),
            f"{served.label}: {objective} is out of reach: alone on the server, a request takes {alone.p50:.1f} ms; "
            "give a longer --slo, or send fewer inputs a request",
        )
    tell(f"closed loop with {CEILING_CLIENTS} clients: the server's ceiling")
    ceiling = run(load_of(served, bodies, step.model_copy(update={"clients": CEILING_CLIENTS, "rate": None})))
    trials: list[RateTrial] = []
    signals: list[Signal | None] = []

    def attempt(rate: float, seconds: float, *, sampled: bool) -> bool:
        # Another seed each time: a repetition would otherwise meet the same bursts.
        one = pattern.model_copy(
            update={"rate": rate, "clients": None, "seconds": seconds, "seed": pattern.seed + len(trials)}
        )
        load, readings = run(_sampled(served, bodies, one)) if sampled else (run(load_of(served, bodies, one)), [])
        trial = trial_of(load, rate, objective)
        trials.append(trial)
        signals.append(signal_of(readings, slots_of(served.info)))
        verdict = trial.missed or f"holds with {objective.measured_ms(trial.latency_ms):.1f} ms"
        tell(f"{rate:8.1f} requests/s for {seconds:.3g} s: {verdict}")
        return trial.holds

    tell(f"{ceiling.requests_per_s:.1f} requests/s at most; now at random arrivals, {objective}")
    found = search(
        lambda rate: attempt(rate, _seconds(rate, step.seconds, objective), sampled=False),
        max(ceiling.requests_per_s, 0.1),
    )
    if found is not None:
        found = confirm(lambda rate: attempt(rate, _seconds(rate, pattern.seconds, objective), sampled=True), found)
    if found is None:
        raise GateError(
            str(objective),
            f"{served.label}: no rate holds {objective}: {trials[-1].missed} at {trials[-1].rate:.2f} requests/s; "
            "give a longer --slo, or send fewer inputs a request",
        )
    confirmed = trials[-1]
    inputs = bodies[0].inputs
    return Capacity(
        created_at=now(),
        server=served.label,
        model=model_of(served.info),
        objective=objective,
        rate_per_pod=found,
        inputs_per_request=inputs,
        inputs_per_second=found * inputs,
        latency_ms=confirmed.latency_ms,
        signal=signals[-1],
        ceiling_requests_per_s=ceiling.requests_per_s,
        cpu=cpu,
        same_machine=served.local,
        trials=trials,
        startup_s=served.started.startup_s if served.started else None,
        memory_bytes=served.started.peak_memory_bytes() if served.started else None,
    )


def trial_of(load: Load, rate: float, objective: Objective) -> RateTrial:
    """Judge a load at `rate`.

    It holds if the answers are 200, within the objective, and keep up.
    """
    latency = Latency.of(load)
    ok_share = float(load.ok.mean()) if load.requests else 0.0
    return RateTrial(
        rate=rate,
        seconds=load.seconds,
        requests_per_s=load.requests_per_s,
        ok_share=ok_share,
        latency_ms=latency,
        missed=_missed(load, ok_share, objective, latency),
    )


def _missed(load: Load, ok_share: float, objective: Objective, latency: Latency) -> str:
    measured = objective.measured_ms(latency)
    if ok_share < MIN_OK_SHARE or measured is None:
        return f"{1 - ok_share:.1%} were not answered 200"
    if measured > objective.limit_ms:
        lag_ms = float(np.percentile(load.lag_s, objective.percent)) * 1000
        # The latency includes the lag, which can only make a rate look worse.
        blame = (
            f", but the generator was late by {lag_ms:.0f} ms" if lag_ms > MAX_LAG_SHARE * objective.limit_ms else ""
        )
        return f"{objective.percentile} was {measured:.0f} ms{blame}"
    # In a steady state the number of open requests is the same at both ends of the window. A growing queue shows here
    # long before it shows in the latencies.
    behind = load.requests - load.answered
    if behind > (1 - MIN_KEPT_UP) * load.requests + FEW:
        return f"{behind} requests behind after {load.seconds:.3g} s"
    return ""


def _seconds(rate: float, least: float, objective: Objective) -> float:
    """Return the length of a run at `rate` that makes its percentile meaningful.

    It is at least `least` seconds, and at most MAX_STRETCH times as long. Enough requests must lie beyond the
    percentile, and at too high a rate the queue needs time to outgrow the objective.
    """
    requests = TAIL_REQUESTS / (1 - objective.percent / 100)
    return min(max(least, requests / rate, GROWTH * objective.limit_ms / 1000), MAX_STRETCH * least)


async def _sampled(served: Served, bodies: Sequence[Body], pattern: Pattern) -> tuple[Load, list[MetricsReading]]:
    """Run a load and sample the server's metrics meanwhile, without the warm-up."""

    async def watch() -> list[MetricsReading]:
        await asyncio.sleep(pattern.warmup_s)
        return await sample(served.target.url, SAMPLE_EVERY_S, pattern.seconds)

    load, readings = await asyncio.gather(load_of(served, bodies, pattern), watch())
    return load, readings
