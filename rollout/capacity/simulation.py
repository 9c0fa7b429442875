"""Simulation of a traffic curve with the autoscaler: its violations and its cost in pods.

The events of pods (start, ready, drain) and the decisions of the real algorithm (`autoscaler`) are exact. Between two
events requests are a flow: an hour at 10,000 requests a second has 36 million requests, while a second of flow costs
the same at any rate. The flow loses little accuracy. Below a pod's ceiling, the effect of random arrivals is in its
measured latencies (`pod_model`); above the ceiling, the backlog grows by the excess, and randomness is small beside it.
Requests that would wait longer than the scheduler accepts (DEADLINE_SHARE of the deadline, or the queue's bound) are
refused with 429. A test simulates the same curve request by request and compares.
"""

from dataclasses import dataclass

import numpy as np

from bentune.bundle.arrays import Floats
from bentune.bundle.files import Frozen
from rollout.capacity.autoscaler import SYNC_S, Autoscaler, Scaling
from rollout.capacity.fleet import BUSY, Fleet, Flow, Habits
from rollout.capacity.pod_model import PodModel
from rollout.capacity.traffic import Traffic
from rollout.load.slo import Objective

STEP_S = 1.0
BISECTIONS = 40
EXACTLY = 1 + 1e-9
"""Tolerance of the comparison at the knee, where exactly the allowed share is too slow."""


class SimulationOutcome(Frozen):
    """Outcome of a simulated curve.

    `arrivals` are `served`, `refused` (429, or killed while draining) or `waiting`. `too_slow` counts accepted requests
    beyond the objective's limit. `held` is true if all requests together met the objective, refused ones counted as too
    slow; `violated_s` counts the seconds that did not, each by itself. `worst_ms` is the highest percentile of any
    second. `replica_hours` count a pod from the decision to start it until it is gone; `steady_replica_hours` is the
    cost of the highest number of pods for the whole time.
    """

    seconds: float
    arrivals: float
    served: float
    refused: float
    waiting: float
    too_slow: float
    held: bool
    violated_s: float
    worst_ms: float
    replica_hours: float
    steady_replica_hours: float
    fewest_replicas: int
    most_replicas: int
    changes: int


@dataclass(frozen=True)
class SimulationSeries:
    """Series of a simulation, an entry a step.

    `seconds` is the start of the step, and `wanted` and `ready` count pods. `rate` and `refused` are in requests a
    second. `latency_ms` is the objective's percentile of accepted requests.
    """

    seconds: Floats
    rate: Floats
    wanted: Floats
    ready: Floats
    latency_ms: Floats
    refused: Floats


def simulate(
    pod: PodModel,
    scaling: Scaling,
    traffic: Traffic,
    objective: Objective,
    habits: Habits,
    *,
    replicas: int | None = None,
    step_s: float = STEP_S,
    sync_s: float = SYNC_S,
    seed: int = 0,
) -> tuple[SimulationOutcome, SimulationSeries]:
    """Simulate `traffic` from `replicas` ready pods on.

    By default it is the number at which the autoscaler is at rest. Equal seeds give equal results.
    """
    rates = traffic.steps(step_s)
    steps = len(rates)
    autoscaler = Autoscaler(scaling)
    wanted = replicas or _at_rest(pod, scaling, float(rates[0]))
    fleet = Fleet(pod, habits, wanted, step_s, seed)
    asked, ready, refused = np.zeros(steps), np.zeros(steps), np.zeros(steps)
    changes = 0
    next_look, next_scrape = sync_s, habits.scrape_s
    for step in range(steps):
        now = step * step_s
        if now >= next_scrape:
            next_scrape += habits.scrape_s
            fleet.scrape()
        if now >= next_look:
            next_look += sync_s
            values, silent = fleet.metrics()
            decided = autoscaler.desired(now, wanted, values, missing=silent)
            changes += decided != wanted
            wanted = decided
            fleet.scale_to(wanted, now)
        before = fleet.refused
        fleet.advance(step, now, float(rates[step]) * step_s)
        asked[step], ready[step], refused[step] = wanted, fleet.ready, (fleet.refused - before) / step_s
    latency_ms, slow = _latencies(pod, fleet.flow, objective, steps)
    come = rates * step_s
    allowed = 1 - objective.percent / 100
    missed = slow + refused * step_s
    outcome = SimulationOutcome(
        seconds=steps * step_s,
        arrivals=float(come.sum()),
        served=fleet.served,
        refused=fleet.refused,
        waiting=fleet.waiting,
        too_slow=float(slow.sum()),
        held=bool(missed.sum() <= allowed * come.sum() * EXACTLY),
        violated_s=float((missed > np.maximum(allowed * come, 1e-12) * EXACTLY).sum() * step_s),
        worst_ms=float(latency_ms.max()),
        replica_hours=fleet.replica_s / 3600,
        steady_replica_hours=float(asked.max()) * steps * step_s / 3600,
        fewest_replicas=int(asked.min()),
        most_replicas=int(asked.max()),
        changes=changes,
    )
    return outcome, SimulationSeries(
        np.arange(steps, dtype=np.float64) * step_s, rates, asked, ready, latency_ms, refused
    )


def _at_rest(pod: PodModel, scaling: Scaling, rate: float) -> int:
    """Return the pods at which the autoscaler comes to rest."""
    pods, busy = scaling.min_replicas, next(target.mean for target in scaling.targets if target.metric == BUSY)
    while pods < scaling.max_replicas and pod.busy_slots(rate / pods) > busy:
        pods += 1
    return pods


def _latencies(pod: PodModel, flow: Flow, objective: Objective, steps: int) -> tuple[Floats, Floats]:
    """Return each step's latency percentile, in ms, and its requests beyond the limit."""
    step, accepted = np.array(flow.step, np.int64), np.array(flow.accepted)
    rate, wait_ms = np.minimum(flow.rate, pod.ceiling), np.array(flow.wait_s) * 1000
    slow = np.bincount(step, accepted * pod.share_over(rate, np.full(len(rate), objective.limit_ms), wait_ms), steps)
    each_ms = pod.latency_ms(rate, objective.percent, wait_ms)
    # The percentile over all pods lies between those of the fastest and the slowest; most steps have one cohort.
    low, high = np.full(steps, np.inf), np.zeros(steps)
    np.minimum.at(low, step, each_ms)
    np.maximum.at(high, step, each_ms)
    low = np.minimum(low, high)
    mixed = (low < high)[step]
    if mixed.any():
        step, accepted, rate, wait_ms = step[mixed], accepted[mixed], rate[mixed], wait_ms[mixed]
        allowed = (1 - objective.percent / 100) * np.bincount(step, accepted, steps)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            over = np.bincount(step, accepted * pod.share_over(rate, middle[step], wait_ms), steps)
            low, high = np.where(over > allowed, middle, low), np.where(over > allowed, high, middle)
    return high, np.asarray(slow, np.float64)
