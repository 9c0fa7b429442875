"""Run of a traffic curve against real servers under the autoscaler, beside its simulation.

It checks the simulation as far as one machine can: a few servers behind a proxy, an open loop of requests, and
`rollout.capacity.autoscaler` on the servers' own /metrics. The simulation uses the measured startup time.
"""

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from bentune.bundle.files import Frozen
from rollout.capacity.autoscaler import SYNC_S, Autoscaler, Scaling
from rollout.capacity.fleet import BUSY, QUEUE, Habits
from rollout.capacity.pod_model import PodModel
from rollout.capacity.servers import Launch, RoundRobin
from rollout.capacity.simulation import STEP_S, SimulationOutcome, simulate
from rollout.capacity.traffic import Traffic
from rollout.load.generator import OK, Body, Load, LoadTarget, open_loop
from rollout.load.slo import Objective
from rollout.server.scrape import parse

REFUSED = 429
SEGMENT_S = 1.0
SCRAPE_TIMEOUT_S = 2.0
SHOWN = {BUSY: "bentune_slots_busy", QUEUE: "bentune_queue_requests"}


class Observed(Frozen):
    """Result of a curve on real servers.

    `failed` requests were neither answered 200 nor refused with 429. `too_slow` counts answers 200 beyond the
    objective's limit. `violated_s` counts the seconds in which more requests than the percentile allows were slow,
    refused or failed. `held` is true if all requests together met the objective. `replica_hours` count a server from
    the decision to start it until it is gone. `startup_s` is the mean startup time.
    """

    seconds: float
    arrivals: int
    served: int
    refused: int
    failed: int
    too_slow: int
    held: bool
    violated_s: float
    replica_hours: float
    startup_s: float
    fewest_replicas: int
    most_replicas: int


class Compared(Frozen):
    """Results of one curve, observed and simulated."""

    observed: Observed
    simulated: SimulationOutcome


@dataclass(eq=False)
class _Server:
    """One server; `ready` and `gone` are times, None before; `shown` are the latest scrapes."""

    context: AbstractContextManager[str]
    shown: deque[dict[str, float]]
    asked: float = field(default_factory=time.monotonic)
    url: str = ""
    ready: float | None = None
    gone: float | None = None
    wanted: bool = True


class _Servers:
    """All servers of a run, past ones included; the proxy has those that are ready and wanted."""

    def __init__(self, launch: Launch, proxy: RoundRobin, habits: Habits) -> None:
        self.all: list[_Server] = []
        self._launch, self._proxy, self._habits = launch, proxy, habits
        self._work: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []

    @property
    def serving(self) -> list[_Server]:
        """Return the servers that are ready."""
        return [server for server in self.all if server.wanted and server.ready is not None]

    def scale_to(self, replicas: int) -> None:
        """Start or remove servers; unready ones go first, then the youngest."""
        wanted = [server for server in self.all if server.wanted]
        for _ in range(replicas - len(wanted)):
            looks = max(round(self._habits.window_s / self._habits.scrape_s), 1)
            server = _Server(self._launch(), deque(maxlen=looks))
            self.all.append(server)
            self._begin(self._bring_up(server))
        wanted.sort(key=lambda server: (server.ready is None, server.ready or server.asked))
        for server in wanted[replicas:]:
            server.wanted = False
            if server.ready is not None:
                self._begin(self._take_down(server))
        self._publish()

    async def settle(self) -> None:
        """Wait for all starts and stops. Raises the error of a server that failed."""
        while self._work:
            await asyncio.gather(*self._work)
        if self._failures:
            raise self._failures[0]

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _bring_up(self, server: _Server) -> None:
        try:
            server.url = await asyncio.to_thread(server.context.__enter__)
        except Exception as error:
            server.wanted, server.gone = False, time.monotonic()
            self._failures.append(error)
            return
        server.ready = time.monotonic()
        self._publish()
        if not server.wanted:
            await self._take_down(server)

    async def _take_down(self, server: _Server) -> None:
        await asyncio.sleep(self._habits.linger_s)
        await asyncio.to_thread(server.context.__exit__, None, None, None)
        server.gone = time.monotonic()

    def _publish(self) -> None:
        self._proxy.urls = [server.url for server in self.serving]


async def play(
    launch: Launch,
    bodies: Sequence[Body],
    pod: PodModel,
    scaling: Scaling,
    traffic: Traffic,
    objective: Objective,
    habits: Habits,
    *,
    path: str = "/predict",
    timeout_s: float = 30.0,
    sync_s: float = SYNC_S,
    seed: int = 0,
) -> Compared:
    """Run `traffic` in real time on servers, and simulate it with their startup time.

    Raises the error of a server that did not start. All servers are stopped at the end, also after an error.
    """
    proxy = RoundRobin()
    servers = _Servers(launch, proxy, habits)
    try:
        servers.scale_to(scaling.min_replicas)
        await servers.settle()
        async with proxy.listening() as url:
            zero = time.monotonic()
            asked = [scaling.min_replicas]
            keeper = asyncio.ensure_future(_keep(servers, Autoscaler(scaling), habits, asked, zero, sync_s))
            try:
                target = LoadTarget(url, path, timeout_s)
                loads = await asyncio.gather(*_loads(target, bodies, traffic, zero=zero, seed=seed))
            finally:
                keeper.cancel()
                with suppress(asyncio.CancelledError):
                    await keeper
    finally:
        servers.scale_to(0)
        await servers.settle()
    observed = _observed(loads, servers, objective, traffic, zero, asked)
    simulated, _ = simulate(
        pod,
        scaling,
        traffic,
        objective,
        dataclasses.replace(habits, startup_s=observed.startup_s),
        replicas=scaling.min_replicas,
        step_s=min(STEP_S, sync_s, habits.scrape_s),
        sync_s=sync_s,
        seed=seed,
    )
    return Compared(observed=observed, simulated=simulated)


async def _keep(
    servers: _Servers, autoscaler: Autoscaler, habits: Habits, asked: list[int], zero: float, sync_s: float
) -> None:
    """Scrape and scale the servers until cancelled.

    Each decision of the autoscaler is appended to `asked`.
    """
    next_scrape, next_look = zero + habits.scrape_s, zero + sync_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT_S)) as session:
        while True:
            await asyncio.sleep(max(min(next_scrape, next_look) - time.monotonic(), 0))
            now = time.monotonic()
            if now >= next_scrape:
                next_scrape += habits.scrape_s
                await asyncio.gather(*(_scrape(session, server) for server in servers.serving))
            if now >= next_look:
                next_look += sync_s
                heard = [server for server in servers.serving if server.shown]
                means = {
                    metric: [float(np.mean([seen[metric] for seen in server.shown])) for server in heard]
                    for metric in SHOWN
                }
                wanted = autoscaler.desired(now - zero, asked[-1], means, missing=asked[-1] - len(heard))
                asked.append(wanted)
                servers.scale_to(wanted)


async def _scrape(session: aiohttp.ClientSession, server: _Server) -> None:
    """Scrape one server; one that does not answer is skipped."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(f"{server.url}/metrics") as answer:
            reading = parse(await answer.read(), time.monotonic())
        if reading is not None:
            server.shown.append({metric: reading.values.get(name, 0.0) for metric, name in SHOWN.items()})


def _loads(
    target: LoadTarget, bodies: Sequence[Body], traffic: Traffic, *, zero: float, seed: int
) -> list[Coroutine[None, None, tuple[float, Load]]]:
    """Create an open loop for each stretch of constant rate; each starts on time."""

    async def stretch(start: float, seconds: float, rate: float) -> tuple[float, Load]:
        await asyncio.sleep(max(zero + start - time.monotonic(), 0))
        return start, await open_loop(target, bodies, rate=rate, seconds=seconds, seed=seed + round(start))

    rates = traffic.steps(SEGMENT_S)
    starts = np.flatnonzero(np.append(True, np.diff(rates) != 0)) * SEGMENT_S
    ends = np.append(starts[1:], traffic.duration_s)
    return [
        stretch(float(start), float(end - start), float(rates[round(start / SEGMENT_S)]))
        for start, end in zip(starts, ends, strict=True)
        if rates[round(start / SEGMENT_S)] > 0
    ]


def _observed(
    loads: Sequence[tuple[float, Load]],
    servers: _Servers,
    objective: Objective,
    traffic: Traffic,
    zero: float,
    asked: Sequence[int],
) -> Observed:
    second = np.concatenate([np.floor(start + load.started_s) for start, load in loads]).astype(np.int64)
    status = np.concatenate([load.status for _, load in loads])
    latency_ms = 1000 * np.concatenate([load.latency_s for _, load in loads])
    served, refused = status == OK, status == REFUSED
    slow = served & (latency_ms > objective.limit_ms)
    missed = np.bincount(second, slow | ~served)
    allowed = 1 - objective.percent / 100
    ended = zero + traffic.duration_s
    hours = [
        (min(server.gone or ended, ended) - max(server.asked, zero)) / 3600
        for server in servers.all
        if server.asked < ended
    ]
    return Observed(
        seconds=traffic.duration_s,
        arrivals=len(status),
        served=int(served.sum()),
        refused=int(refused.sum()),
        failed=int((~served & ~refused).sum()),
        too_slow=int(slow.sum()),
        held=bool(missed.sum() <= allowed * len(status)),
        violated_s=float((missed > allowed * np.bincount(second)).sum()),
        replica_hours=float(sum(hours)),
        startup_s=float(np.mean([server.ready - server.asked for server in servers.all if server.ready is not None])),
        fewest_replicas=min(asked),
        most_replicas=max(asked),
    )
