"""The load generator: sends prepared bodies in a closed or an open loop and keeps one measurement a request.

Closed loop: each client waits for its answer before it sends again, so a stalled server is asked less and its stall is
seen once. Open loop: requests come at random times that no server can change, and each latency counts from the time
its request was meant to start, so that a stall shows in every request that had to wait for its end.
"""

import asyncio
import errno
import gc
import itertools
import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import aiohttp
import numpy as np
from numpy.typing import NDArray

from bentune.bundle.errors import BentuneError, InputError
from rollout.load.arrivals import arrivals, keep_to

OK = 200
NO_ANSWER = 0
"""The status of a request that got none: no connection, a broken one, or none in time."""

KEEPALIVE_S = 4.0
"""Servers close idle connections, uvicorn after 5 s; a request that crosses that would look like the server's error."""

PAUSE_AFTER_NO_ANSWER_S = 0.05
"""A refused connection costs nothing: without a pause one dead second would count as thousands of requests."""

PROGRESS_EVERY_S = 0.25

Result = TypeVar("Result")
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Progress: TypeAlias = Callable[[float], None]
"""Is given the seconds since the start, the warm-up included, a few times a second."""


@dataclass(frozen=True, slots=True)
class Body:
    """One prepared request: its JSON, how many texts are in it, and the group it is reported with."""

    content: bytes
    texts: int = 1
    group: str = ""


@dataclass(frozen=True)
class Target:
    """Where requests are posted: the server's address without a path, and the path; `timeout_s` bounds one request."""

    url: str
    path: str = "/predict"
    timeout_s: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """What was measured: an entry for each request that started after the warm-up, in the order the answers came.

    `started_s` counts from the end of the warm-up; in an open loop it is when the request was meant to start, and
    `latency_s` counts from there. `status` is NO_ANSWER for a request without one. `retry_after_s` is NaN where the
    answer had none. `lag_s` is how much later than meant a request was really sent: large, it is the generator that
    was slow. `answered` and `answered_texts` count the answers 200 that came within the window of `seconds`, those to
    requests of the warm-up included: they make up for the ones that were still open when the window closed. `cpu_s`
    is the CPU time that this process took.
    """

    started_s: Floats
    latency_s: Floats
    status: Ints
    texts: Ints
    group: NDArray[np.str_]
    retry_after_s: Floats
    lag_s: Floats
    seconds: float
    answered: int
    answered_texts: int
    cpu_s: float

    @property
    def requests(self) -> int:
        """All requests that started in the window, whatever became of them."""
        return len(self.status)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests were answered 200."""
        ok: NDArray[np.bool_] = self.status == OK
        return ok

    @property
    def requests_per_s(self) -> float:
        """Answers 200 per second."""
        return self.answered / self.seconds

    @property
    def texts_per_s(self) -> float:
        """Texts answered 200 per second."""
        return self.answered_texts / self.seconds

    @property
    def statuses(self) -> dict[int, int]:
        """How many requests got each status."""
        return dict(sorted(Counter(self.status.tolist()).items()))

    def percentiles(self, percents: Sequence[float], group: str | None = None) -> list[float]:
        """Latencies in seconds below which each percent of the answers 200 lies; NaN when there is none.

        Each is a latency that occurred, the higher one where the percentile falls between two.
        """
        latencies = self.latency_s[self.ok if group is None else self.ok & (self.group == group)]
        if not len(latencies):
            return [math.nan] * len(percents)
        return [float(value) for value in np.percentile(latencies, percents, method="higher")]

    @classmethod
    def joined(cls, parts: Sequence["Load"]) -> "Load":
        """Windows on the same server, one after the other."""
        starts = np.cumsum([0.0, *(part.seconds for part in parts[:-1])])
        return cls(
            started_s=np.concatenate([part.started_s + start for part, start in zip(parts, starts, strict=True)]),
            latency_s=np.concatenate([part.latency_s for part in parts]),
            status=np.concatenate([part.status for part in parts]),
            texts=np.concatenate([part.texts for part in parts]),
            group=np.concatenate([part.group for part in parts]),
            retry_after_s=np.concatenate([part.retry_after_s for part in parts]),
            lag_s=np.concatenate([part.lag_s for part in parts]),
            seconds=sum(part.seconds for part in parts),
            answered=sum(part.answered for part in parts),
            answered_texts=sum(part.answered_texts for part in parts),
            cpu_s=sum(part.cpu_s for part in parts),
        )


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run one coroutine on a loop of its own: uvloop's where it is installed, which takes less CPU time."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


async def closed_loop(
    target: Target,
    bodies: Sequence[Body],
    *,
    clients: int,
    seconds: float,
    warmup_s: float = 0.0,
    requests: int | None = None,
    progress: Progress | None = None,
) -> Load:
    """Keep `clients` requests under way, each on a connection of its own; a body after the other, over and over.

    Ends after `seconds`, or sooner after `requests` requests, the warm-up not counted. What is under way then is
    waited for. Raises InputError for arguments that make no sense, BentuneError when this machine cannot send.
    """
    _require(bodies, clients=clients, seconds=seconds, requests=1 if requests is None else requests)
    order = itertools.cycle(bodies)
    tickets = itertools.count()
    with _quiet_collector():
        async with _Recorder(target, clients, warmup_s, progress) as recorder:

            async def client() -> None:
                while (now := recorder.now()) < seconds:
                    if requests is not None and now >= 0 and next(tickets) >= requests:
                        return
                    if await recorder.ask(next(order), now) == NO_ANSWER:
                        await asyncio.sleep(PAUSE_AFTER_NO_ANSWER_S)

            async with asyncio.TaskGroup() as group:
                for _ in range(clients):
                    group.create_task(client())
            return recorder.load(seconds if requests is None else min(seconds, max(recorder.now(), 1e-9)))


async def open_loop(
    target: Target,
    bodies: Sequence[Body],
    *,
    rate: float,
    seconds: float,
    warmup_s: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Load:
    """Send `rate` requests a second at Poisson times, chosen before the first is sent, however slow the answers are.

    Connections are as many as it takes. What is under way at the end is waited for. Raises InputError for arguments
    that make no sense, BentuneError when this machine cannot send.
    """
    _require(bodies, rate=rate, seconds=seconds, requests=1)
    times = arrivals(rate, warmup_s + seconds, seed) - warmup_s
    order = itertools.cycle(bodies)
    under_way: set[asyncio.Future[int]] = set()
    with _quiet_collector():
        async with _Recorder(target, 0, warmup_s, progress) as recorder:

            def start(meant: float) -> None:
                task = asyncio.ensure_future(recorder.ask(next(order), meant))
                under_way.add(task)
                task.add_done_callback(under_way.discard)

            try:
                await keep_to(times.tolist(), recorder.zero, start)
                await asyncio.gather(*under_way)
            finally:
                for task in under_way:
                    task.cancel()
            return recorder.load(seconds)


class _Recorder:
    """Sends requests and writes down what became of them; its clock is 0 at the end of the warm-up."""

    def __init__(self, target: Target, connections: int, warmup_s: float, progress: Progress | None) -> None:
        self.broken: BentuneError | None = None
        self._target = target
        self._url = target.url.rstrip("/") + target.path
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=target.timeout_s),
            auto_decompress=False,
            headers={"content-type": "application/json", **target.headers},
        )
        self._warmup_s = warmup_s
        self._progress = progress
        # Arrays of numbers, for the garbage collector has nothing to look at in them.
        self._started, self._latency, self._retry, self._lag = (array("d") for _ in range(4))
        self._status, self._texts = array("q"), array("q")
        self._groups: list[str] = []
        # Finish times and texts of the warm-up's answers 200.
        self._warm_finished, self._warm_texts = array("d"), array("q")

    async def __aenter__(self) -> "_Recorder":
        await self._session.__aenter__()
        self._ticker = asyncio.ensure_future(self._tick())
        self._cpu = time.process_time()
        self.zero = time.perf_counter() + self._warmup_s
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._ticker.cancel()
        await self._session.close()

    def now(self) -> float:
        """Seconds since the end of the warm-up; negative before it."""
        return time.perf_counter() - self.zero

    async def ask(self, body: Body, meant: float) -> int:
        """Send one request that was meant to start at `meant`, wait for the whole answer, and return its status."""
        sent = self.now()
        retry_after = math.nan
        try:
            async with self._session.post(self._url, data=body.content, allow_redirects=False) as answer:
                # Read to its end, for only then is it answered, and forgotten at once, however long it is.
                while await answer.content.readany():
                    pass
                status = answer.status
                if status != OK:
                    retry_after = _seconds_of(answer.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
                self.broken = BentuneError(
                    "this machine ran out of open files: the server answers too slowly for this rate; "
                    "lower --rate or --timeout-ms, or raise `ulimit -n`"
                )
            status = NO_ANSWER
        finished = self.now()
        if meant >= 0:
            self._started.append(meant)
            self._latency.append(finished - meant)
            self._status.append(status)
            self._texts.append(body.texts)
            self._retry.append(retry_after)
            self._lag.append(sent - meant)
            self._groups.append(body.group)
        elif status == OK:
            self._warm_finished.append(finished)
            self._warm_texts.append(body.texts)
        return status

    def load(self, seconds: float) -> Load:
        """Everything that was written down, over a window of `seconds`. Raises what this machine could not do."""
        if self.broken is not None:
            raise self.broken
        started, latency, texts = np.array(self._started), np.array(self._latency), np.array(self._texts, np.int64)
        status = np.array(self._status, np.int64)
        warm_finished, warm_texts = np.array(self._warm_finished), np.array(self._warm_texts, np.int64)
        inside = (status == OK) & (started + latency <= seconds)
        warm_inside = (warm_finished >= 0) & (warm_finished <= seconds)
        return Load(
            started_s=started,
            latency_s=latency,
            status=status,
            texts=texts,
            group=np.array(self._groups, np.str_),
            retry_after_s=np.array(self._retry),
            lag_s=np.array(self._lag),
            seconds=seconds,
            answered=int(inside.sum() + warm_inside.sum()),
            answered_texts=int(texts[inside].sum() + warm_texts[warm_inside].sum()),
            cpu_s=time.process_time() - self._cpu,
        )

    async def _tick(self) -> None:
        while self._progress is not None:
            self._progress(self.now() + self._warmup_s)
            await asyncio.sleep(PROGRESS_EVERY_S)


def _seconds_of(header: str | None) -> float:
    """Retry-After as seconds; NaN without one, and for a date."""
    return float(header) if header is not None and header.isdecimal() and len(header) <= 9 else math.nan


def _require(bodies: Sequence[Body], **positive: float) -> None:
    if not bodies:
        raise InputError("there is nothing to send: give at least one body")
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}; give a number above 0")


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keep what was there before out of the garbage collector's sight, so that its pauses stay short."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
