"""Real servers are started and stopped by the autoscaler, and the simulation of the same says about the same."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from aiohttp import web
from http_server import OneWorker, serving
from measured import capacity, knee_of

from bentune.bundle.errors import BentuneError
from rollout.capacity.autoscaler import SCALE_DOWN, SCALE_UP, MetricTarget, Policy, Scaling
from rollout.capacity.fleet import BUSY, QUEUE, Habits
from rollout.capacity.play import play
from rollout.capacity.pod_model import PodModel
from rollout.capacity.traffic import Traffic
from rollout.load.generator import Body
from rollout.load.slo import parse_objective

pytestmark = pytest.mark.alone

SLO = "p99=500ms"
OBJECTIVE = parse_objective(SLO)
POD = PodModel.of(capacity(slo=SLO))
HABITS = Habits(startup_s=99, window_s=1.0, room=40, linger_s=0.1, grace_s=5, scrape_s=0.25)
RULES = {
    "up": SCALE_UP.model_copy(update={"policies": (Policy(kind="Pods", value=4, period_s=1),)}),
    "down": SCALE_DOWN.model_copy(update={"stabilization_s": 2}),
}
TARGETS = (MetricTarget(metric=BUSY, mean=0.8 * knee_of(OBJECTIVE) / 100), MetricTarget(metric=QUEUE, mean=20))


class Pod(OneWorker):
    """A hundred requests a second, one by one, and the metrics that an autoscaler reads."""

    def __init__(self) -> None:
        super().__init__(0.01, room=40)

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/metrics":
            busy, waiting = min(self.open, 1), max(self.open - 1, 0)
            return web.Response(text=f"bentune_slots_busy {busy}\nbentune_queue_requests {waiting}\n")
        return await super().__call__(request)


def test_servers_follow_the_traffic_and_the_simulation_agrees() -> None:
    running: list[int] = []

    @contextmanager
    def launch() -> Iterator[str]:
        with serving(Pod()) as url:
            running.append(1)
            yield url
        running.pop()

    # 30 requests/s, then 150 for four seconds, then 30 again.
    traffic = Traffic("step", np.array([0.0, 1, 1, 5, 5, 9]), np.array([30.0, 30, 150, 150, 30, 30]))
    scaling = Scaling(min_replicas=1, max_replicas=3, targets=TARGETS, **RULES)  # type: ignore[arg-type]
    compared = asyncio.run(
        play(launch, [Body(b"{}")], POD, scaling, traffic, OBJECTIVE, HABITS, timeout_s=5, sync_s=0.5, seed=3)
    )
    observed, simulated = compared.observed, compared.simulated
    assert running == []
    assert observed.arrivals == observed.served + observed.refused + observed.failed
    assert observed.arrivals == pytest.approx(simulated.arrivals, rel=0.15)
    assert observed.failed == 0
    assert (observed.fewest_replicas, observed.most_replicas) == (1, 3)
    assert (simulated.fewest_replicas, simulated.most_replicas) == (1, 3)
    assert observed.startup_s < 1
    # One server for the whole time would be 9 s, three of them 27.
    assert 12 <= 3600 * observed.replica_hours <= 25
    assert observed.replica_hours == pytest.approx(simulated.replica_hours, rel=0.4)


def test_a_server_that_does_not_start_is_an_error_and_the_others_are_stopped() -> None:
    running: list[int] = []
    started: list[int] = []

    @contextmanager
    def launch() -> Iterator[str]:
        started.append(1)
        if len(started) == 2:
            raise BentuneError("it exited with 1 before it was ready")
        with serving(Pod()) as url:
            running.append(1)
            yield url
        running.pop()

    traffic = Traffic("flat", np.array([0.0, 60]), np.array([10.0, 10]))
    scaling = Scaling(min_replicas=2, max_replicas=3, targets=TARGETS)
    with pytest.raises(BentuneError, match="exited with 1"):
        asyncio.run(play(launch, [Body(b"{}")], POD, scaling, traffic, OBJECTIVE, HABITS))
    assert (len(started), running) == (2, [])
