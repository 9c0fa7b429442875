"""Sizing of a Deployment and its autoscaler from the measured capacity of one pod.

In these rules `rate` is the rate that a pod held within the objective (capacity.json: rate_per_pod), in requests a
second:

- pods at the peak: ceil(peak / (rate x headroom)). No pod is planned to work at the knee, where the next burst misses
  the objective.
- targets: first, the slots that were busy at the knee, times the headroom. Batches grow with the load, so that slots
  fill faster than the rate grows, and the autoscaler holds the pods at the planned rate or below. This metric cannot
  exceed all slots, however few the pods are. So there is a second target, which only an overload reaches: the inputs
  that a pod computes within the objective, times the headroom, as waiting inputs. The waiting inputs at the knee would
  be too few: a ratio to them is noise.
- fewest pods: those for the lowest rate, and those for growth that new pods are too late for. New pods serve one
  reaction late (the metric's window, the autoscaler's next decision, the startup). Where the traffic grows within one
  reaction by more than the headroom, less the autoscaler's tolerance, the pods must be there before. Never fewer than
  two: one may be evicted.
- most pods: those at the peak, plus those that clear the backlog of the fastest growth within one more reaction;
  at least the fewest pods. The backlog of a pod is bounded: further requests were refused.
- memory: the measured peak and a full queue, plus a fifth.
- CPU: request and limit are the cores of the measurement. Slots and threads follow the limit, and with a smaller
  request the node may give the same cores to other pods.
- grace period: preStop, then the server's wait for open connections, then the drain, then a margin, one after the
  other.
"""

import math
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import Field, JsonValue, ValidationError

from bentune.bundle.arrays import Floats
from bentune.bundle.errors import InputError
from bentune.bundle.files import Frozen
from rollout.capacity.autoscaler import SYNC_S, TOLERANCE, MetricTarget, Scaling
from rollout.capacity.fleet import BUSY, QUEUE, Habits
from rollout.capacity.play import Compared
from rollout.capacity.pod_model import PodModel, threads_of
from rollout.capacity.simulation import SimulationOutcome
from rollout.capacity.traffic import Traffic
from rollout.load.bench import now
from rollout.load.knee import SCHEMA_VERSION as CAPACITY_SCHEMA
from rollout.load.knee import Capacity
from rollout.load.slo import Objective
from rollout.server.server import STOP_TIMEOUT_S
from service.engine.memory import WAITING_INPUT
from service.scheduling.scheduler import DEADLINE_SHARE
from service.settings import Settings
from service.tasks.task import WAITING_TOKEN

SCHEMA_VERSION = 1
WINDOW_S = 60.0
"""Window over which the metric is averaged: a single scrape may fall between two batches."""
FEWEST = 2
MAX_HEADROOM = 1 / (1 + TOLERANCE)
"""Highest headroom: the autoscaler tolerates a metric above its target, which beyond this is above the knee."""
PRE_STOP_S = 5.0
"""Same as in k8s/base: by then the endpoints are updated."""
MARGIN_S = 5.0
DEFAULT_STARTUP_S = 30.0
MAX_REPLICAS = 100_000
MEMORY_MARGIN, MEMORY_STEP_MI = 1.2, 64


class Resources(Frozen):
    """Resources of one pod, both request and limit.

    `cpu` is in cores; `memory` is a quantity, None to leave it unchanged.
    """

    cpu: float = Field(gt=0)
    memory: str | None


class Shutdown(Frozen):
    """Phases of a pod's shutdown in seconds; `grace_period_s` is their sum."""

    pre_stop_s: float
    open_connections_s: float
    drain_s: float
    margin_s: float
    grace_period_s: int


class Keda(Frozen):
    """Target for KEDA's trigger `prometheus`, which divides a sum by its threshold."""

    query: str
    threshold: float


class Sizing(Frozen):
    """Sizing of a Deployment and its autoscaler; rates are in requests a second.

    `replicas_at_peak` follows the first rule of this module. `reaction_s` is the time from a change of the traffic
    until a new pod serves. `queue_requests` may wait at one pod, and more are refused.
    """

    objective: Objective
    peak: float
    headroom: float
    rate_per_pod: float
    startup_s: float
    reaction_s: float
    replicas_at_peak: int
    scaling: Scaling
    keda: tuple[Keda, ...]
    resources: Resources
    shutdown: Shutdown
    queue_requests: float


class TrafficSummary(Frozen):
    """Summary of the traffic, in seconds and requests a second."""

    name: str
    seconds: float
    lowest: float
    highest: float


class CapacityPlan(Frozen):
    """Content of capacity-plan.json: the sizing, its inputs, and the results of its runs."""

    schema_version: int = SCHEMA_VERSION
    created_at: datetime = Field(default_factory=now)
    server: str
    model: dict[str, JsonValue] | None
    measured: Objective
    sizing: Sizing
    traffic: TrafficSummary
    simulated: SimulationOutcome
    played: Compared | None = None


def read_capacity(path: Path) -> Capacity:
    """Read capacity.json.

    Raises InputError when it is missing, invalid, or of another version.
    """
    try:
        capacity = Capacity.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); `bentune bench --find-knee` writes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path}: is no capacity.json ({where}: {first['msg']}); `bentune bench --find-knee` writes one"
        ) from None
    if capacity.schema_version != CAPACITY_SCHEMA:
        raise InputError(f"{path}: has version {capacity.schema_version}, not {CAPACITY_SCHEMA}; measure it again")
    return capacity


def require_measured(objective: Objective, capacity: Capacity) -> None:
    """Raise InputError if `objective` is stricter than the measured one; name both."""
    held = capacity.objective
    if objective.percent > held.percent or objective.limit_ms < held.limit_ms:
        raise InputError(
            f"--slo {objective} is stricter than {held}, with which {capacity.server} was measured; "
            f"run `bentune bench --find-knee --slo {objective}`, or give {held}"
        )


def size(
    capacity: Capacity,
    objective: Objective,
    traffic: Traffic,
    *,
    peak: float,
    settings: Settings,
    startup_s: float | None = None,
    headroom: float = 0.8,
    least: int | None = None,
    cpu: float | None = None,
    memory: str | None = None,
) -> Sizing:
    """Apply the rules of this module.

    `least` overrides the fewest pods, and `cpu`, `memory` and `startup_s` override the measured values. Raises
    InputError for an objective that was not measured, and for impossible numbers.
    """
    require_measured(objective, capacity)
    if not 0 < headroom <= MAX_HEADROOM:
        raise InputError(
            f"--headroom {headroom:g} is not above 0 and at most {MAX_HEADROOM:.2f}: beyond it the autoscaler's "
            f"tolerance of {TOLERANCE:g} lets pods run above the rate at which they hold the objective"
        )
    pod = PodModel.of(capacity)
    rate = capacity.rate_per_pod
    if startup_s is None:
        startup_s = DEFAULT_STARTUP_S if capacity.startup_s is None else round(capacity.startup_s, 1)
    reaction_s = WINDOW_S + SYNC_S + startup_s
    queue_requests = _queue(pod, settings)
    growth = Growth.of(traffic, reaction_s, headroom)
    at_peak = _pods(peak, rate * headroom)
    fewest = max(FEWEST, _pods(traffic.lowest, rate * headroom), _pods(growth.overrun, rate))
    backlog = min(growth.backlog, growth.pods_before(rate) * queue_requests)
    most = _pods(peak + backlog / reaction_s, rate * headroom)
    fewest = least or fewest
    waiting = min(rate * objective.limit_ms / 1000, queue_requests) * pod.inputs
    targets = (
        MetricTarget(metric=BUSY, mean=max(round(pod.busy * headroom, 3), 0.001)),
        MetricTarget(metric=QUEUE, mean=max(math.floor(waiting * headroom), 1)),
    )
    return Sizing(
        objective=objective,
        peak=peak,
        headroom=headroom,
        rate_per_pod=rate,
        startup_s=startup_s,
        reaction_s=reaction_s,
        replicas_at_peak=at_peak,
        scaling=Scaling(min_replicas=fewest, max_replicas=max(most, fewest), targets=targets),
        keda=tuple(
            Keda(query=f"sum(avg_over_time({target.metric.removesuffix('_avg')}[1m]))", threshold=target.mean)
            for target in targets
        ),
        resources=Resources(cpu=cpu or _cores(capacity), memory=memory or _memory(capacity, settings)),
        shutdown=_shutdown(settings),
        queue_requests=queue_requests,
    )


def habits(sizing: Sizing) -> Habits:
    """Return the lifecycle of this sizing's pods, for a simulation."""
    return Habits(
        startup_s=sizing.startup_s,
        window_s=WINDOW_S,
        room=sizing.queue_requests,
        linger_s=sizing.shutdown.pre_stop_s,
        grace_s=sizing.shutdown.grace_period_s,
    )


class Growth(Frozen):
    """Growth of a curve beyond pods that follow it one reaction late.

    Values are in requests a second and requests. `overrun` is the highest rate that arrives before its pods, 0 when the
    headroom covers all growth. `backlog` is the largest backlog within one reaction, and `before` the rate that the
    pods were sized for at that time.
    """

    overrun: float
    backlog: float
    before: float

    @classmethod
    def of(cls, traffic: Traffic, reaction_s: float, headroom: float) -> "Growth":
        """Compute the growth at each second, or at 100,000 points of a long curve."""
        step_s = max(1.0, traffic.duration_s / 100_000)
        times = np.arange(0.0, traffic.duration_s + step_s, step_s)
        rates = traffic.at(times)
        # At rest the metric is within the tolerance of its target, possibly above it.
        held = rates / (headroom * (1 + TOLERANCE))
        later: Floats = rates.copy()
        backlog = np.zeros(len(rates))
        for shift in range(1, min(math.ceil(reaction_s / step_s), len(rates) - 1) + 1):
            ahead = np.append(rates[shift:], np.full(shift, rates[-1]))
            later = np.maximum(later, ahead)
            backlog += np.maximum(ahead - held, 0.0) * step_s
        worst = int(backlog.argmax())
        overrun = float(later[later > held * (1 + 1e-9)].max(initial=0.0))
        return cls(overrun=overrun, backlog=float(backlog[worst]), before=float(held[worst]))

    def pods_before(self, rate: float) -> int:
        """Return the pods, of `rate` each, at the time when the backlog began to grow."""
        return max(_pods(self.before, rate), FEWEST)


def _pods(rate: float, per_pod: float) -> int:
    # The error of a float must not add a pod.
    pods = math.ceil(round(rate / per_pod, 9))
    if pods > MAX_REPLICAS:
        raise InputError(f"{rate:g} requests/s at {per_pod:g} a pod are {pods} pods, more than {MAX_REPLICAS}")
    return pods


def _queue(pod: PodModel, settings: Settings) -> float:
    """Return the requests that may wait at a pod.

    The smaller of two bounds decides: the pod's share of the deadline, or the size of its queue.
    """
    wait_s = DEADLINE_SHARE * settings.request_timeout_ms / 1000
    return min(pod.ceiling * wait_s, max(settings.queue_inputs // pod.inputs, 1))


def _cores(capacity: Capacity) -> float:
    if capacity.same_machine:
        return float(capacity.cpu.cores)
    plan = PodModel.of(capacity).slots, threads_of(capacity)
    if plan[1] is None:
        raise InputError(
            f"{capacity.server} was measured from another machine and did not report its cores; give them with --cpu"
        )
    return float(plan[0] * plan[1])


def _memory(capacity: Capacity, settings: Settings) -> str | None:
    """Return the measured memory and a full queue's, with a margin.

    The sum is rounded up to a multiple of MEMORY_STEP_MI. Returns None if the memory was not measured.
    """
    if capacity.memory_bytes is None:
        return None
    waiting = settings.queue_inputs * WAITING_INPUT + settings.queue_tokens * WAITING_TOKEN
    steps = math.ceil((capacity.memory_bytes + waiting) * MEMORY_MARGIN / (MEMORY_STEP_MI * 2**20))
    return f"{steps * MEMORY_STEP_MI}Mi"


def _shutdown(settings: Settings) -> Shutdown:
    wait_s, drain_s = DEADLINE_SHARE * settings.request_timeout_ms / 1000, settings.drain_timeout_ms / 1000
    if wait_s > STOP_TIMEOUT_S:
        raise InputError(
            f"BENTUNE_REQUEST_TIMEOUT_MS={settings.request_timeout_ms}: a request may wait {wait_s:g} s, but a server "
            f"that stops waits {STOP_TIMEOUT_S:g} s for its connections; give at most "
            f"{STOP_TIMEOUT_S / DEADLINE_SHARE * 1000:.0f}"
        )
    return Shutdown(
        pre_stop_s=PRE_STOP_S,
        open_connections_s=STOP_TIMEOUT_S,
        drain_s=drain_s,
        margin_s=MARGIN_S,
        grace_period_s=math.ceil(PRE_STOP_S + STOP_TIMEOUT_S + drain_s + MARGIN_S),
    )
