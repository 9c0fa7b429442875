"""A capacity.json whose truth is known: of a pod that queueing theory describes, one server with random service times.

Its latencies are exponential: of a pod that serves `ceiling` requests a second and gets `rate`, a share p takes at most
-ln(1 - p) / (ceiling - rate) seconds, and it is busy for rate / ceiling of the time.
"""

import math

from bentune.bundle.hardware import Cpu
from rollout.load.knee import Capacity, RateTrial
from rollout.load.latency import Latency
from rollout.load.slo import Objective, parse_objective
from rollout.server.scrape import Signal

CEILING = 100.0
SLO = "p99=200ms"


def latency_ms(rate: float, percent: float, ceiling: float = CEILING) -> float:
    return -math.log(1 - percent / 100) / (ceiling - rate) * 1000


def knee_of(objective: Objective, ceiling: float = CEILING) -> float:
    return ceiling + math.log(1 - objective.percent / 100) / objective.limit_ms * 1000


def trial(rate: float, objective: Objective, ceiling: float = CEILING) -> RateTrial:
    p50, p90, p99, p99_9 = (latency_ms(rate, percent, ceiling) for percent in (50, 90, 99, 99.9))
    return RateTrial(
        rate=rate,
        seconds=10,
        requests_per_s=rate,
        ok_share=1.0,
        latency_ms=Latency(p50=p50, p90=p90, p99=p99, p99_9=p99_9, max=p99_9, answers=10_000),
        missed="" if rate <= knee_of(objective, ceiling) * (1 + 1e-9) else "too slow",
    )


def capacity(ceiling: float = CEILING, slo: str = SLO, *, slots: int = 1) -> Capacity:
    """Tried at every 5 % of the ceiling, and at the knee."""
    objective = parse_objective(slo)
    knee = knee_of(objective, ceiling)
    rates = [*sorted({ceiling * share / 20 for share in range(1, 20)} | {0.98 * ceiling}), knee]
    trials = [trial(rate, objective, ceiling) for rate in rates]
    return Capacity(
        created_at="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
        server="one-server:1",
        model={"name": "one-server", "plan": {"slots": slots, "threads": 2}},
        objective=objective,
        rate_per_pod=knee,
        inputs_per_request=1,
        inputs_per_second=knee,
        latency_ms=trials[-1].latency_ms,
        signal=Signal(slots_busy=knee / ceiling, queue_tokens=40.0, samples=60),
        ceiling_requests_per_s=ceiling,
        cpu=Cpu(model="a CPU", isa=("avx2",), cores=2),
        same_machine=True,
        trials=trials,
    )
