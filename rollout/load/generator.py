"""Load generator: prepared bodies in a closed or an open loop, with one measurement a request.

In a closed loop each client waits for its answer before it sends again, so that a stalled server gets fewer requests
and its stall is measured once. In an open loop requests start at random times that no server can change. Each latency
counts from the intended start, so that a stall shows in every request that had to wait for its end.
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

from bentune.bundle.arrays import Floats, Ints
from bentune.bundle.errors import BentuneError, InputError
from rollout.load.arrivals import arrivals, keep_to

OK = 200
NO_ANSWER = 0
"""Status of a request without an answer: no connection, a broken one, or a timeout."""

KEEPALIVE_S = 4.0
"""Shorter than the server's: uvicorn closes idle connections after 5 s, and a request at that moment would fail."""

PAUSE_AFTER_NO_ANSWER_S = 0.05
"""Pause after a request without an answer: refused connections would otherwise count thousands of requests a second."""

PROGRESS_EVERY_S = 0.25

_T = TypeVar("_T")
Progress: TypeAlias = Callable[[float], None]
"""Function that is called a few times a second with the seconds since the start, the warm-up included."""


@dataclass(frozen=True, slots=True)
class Body:
    """Prepared request: its JSON, its number of inputs, and the group that it is reported with."""

    content: bytes
    inputs: int = 1
    group: str = ""


@dataclass(frozen=True)
class LoadTarget:
    """Target of requests: the server's address without a path, and the path.

    `timeout_s` bounds one request.
    """

    url: str
    path: str = "/predict"
    timeout_s: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """Measurements of a load.

    Each array has an entry for each request that started after the warm-up, in the order of the answers. `started_s`
    counts from the end of the warm-up. In an open loop it is the intended start, from which `latency_s` counts.
    `status` is NO_ANSWER for a request without an answer. `retry_after_s` is NaN where the answer had none. `lag_s` is
    the delay of the real start: if it is large, the generator was slow. `answered` and `answered_inputs` count the
    answers 200 within the window of `seconds`, those to requests of the warm-up included: they make up for requests
    that were still open when the window closed. `cpu_s` is the CPU time of this process.
    """

    started_s: Floats
    latency_s: Floats
    status: Ints
    inputs: Ints
    group: NDArray[np.str_]
    retry_after_s: Floats
    lag_s: Floats
    seconds: float
    answered: int
    answered_inputs: int
    cpu_s: float

    @property
    def requests(self) -> int:
        """Count the requests that started in the window, answered or not."""
        return len(self.status)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Mark the requests that were answered 200, bool [requests]."""
        ok: NDArray[np.bool_] = self.status == OK
        return ok

    @property
    def requests_per_s(self) -> float:
        """Return answers 200 per second."""
        return self.answered / self.seconds

    @property
    def inputs_per_s(self) -> float:
        """Return inputs answered 200 per second."""
        return self.answered_inputs / self.seconds

    @property
    def statuses(self) -> dict[int, int]:
        """Count the requests by status."""
        return dict(sorted(Counter(self.status.tolist()).items()))

    def percentiles(self, percents: Sequence[float], group: str | None = None) -> list[float]:
        """Return latency percentiles of answers 200, in seconds; NaN when there is none.

        Each is a measured latency, the higher one where the percentile falls between two.
        """
        latencies = self.latency_s[self.ok if group is None else self.ok & (self.group == group)]
        if not len(latencies):
            return [math.nan] * len(percents)
        return [float(value) for value in np.percentile(latencies, percents, method="higher")]

    @classmethod
    def joined(cls, parts: Sequence["Load"]) -> "Load":
        """Join windows on the same server, one after the other."""
        starts = np.cumsum([0.0, *(part.seconds for part in parts[:-1])])
        return cls(
            started_s=np.concatenate([part.started_s + start for part, start in zip(parts, starts, strict=True)]),
            latency_s=np.concatenate([part.latency_s for part in parts]),
            status=np.concatenate([part.status for part in parts]),
            inputs=np.concatenate([part.inputs for part in parts]),
            group=np.concatenate([part.group for part in parts]),
            retry_after_s=np.concatenate([part.retry_after_s for part in parts]),
            lag_s=np.concatenate([part.lag_s for part in parts]),
            seconds=sum(part.seconds for part in parts),
            answered=sum(part.answered for part in parts),
            answered_inputs=sum(part.answered_inputs for part in parts),
            cpu_s=sum(part.cpu_s for part in parts),
        )


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run one coroutine on its own event loop, uvloop's if installed.

    uvloop takes less CPU time.
    """
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


async def closed_loop(
    target: LoadTarget,
    bodies: Sequence[Body],
    *,
    clients: int,
    seconds: float,
    warmup_s: float = 0.0,
    requests: int | None = None,
    progress: Progress | None = None,
) -> Load:
    """Keep `clients` requests under way, each on its own connection.

    The requests cycle through the bodies. Ends after `seconds`, or earlier after `requests` requests, both without the
    warm-up, and waits for open requests. Raises InputError for invalid arguments, and BentuneError when this machine
    cannot send.
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
    target: LoadTarget,
    bodies: Sequence[Body],
    *,
    rate: float,
    seconds: float,
    warmup_s: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Load:
    """Send `rate` requests a second at Poisson times, independent of the answers.

    The times are drawn in advance, and the number of connections is not limited. At the end it waits for open requests.
    Raises InputError for invalid arguments, and BentuneError when this machine cannot send.
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
    """Sender of requests and recorder of their results.

    Its clock is 0 at the end of the warm-up.
    """

    def __init__(self, target: LoadTarget, connections: int, warmup_s: float, progress: Progress | None) -> None:
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
        # Arrays of numbers: the garbage collector need not traverse them.
        self._started, self._latency, self._retry, self._lag = (array("d") for _ in range(4))
        self._status, self._inputs = array("q"), array("q")
        self._groups: list[str] = []
        # Finish times and inputs of answers 200 to requests of the warm-up.
        self._warm_finished, self._warm_inputs = array("d"), array("q")

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
        """Return the seconds since the end of the warm-up; negative before it."""
        return time.perf_counter() - self.zero

    async def ask(self, body: Body, meant: float) -> int:
        """Send one request, read the whole answer, and return its status.

        The intended start of the request is `meant`.
        """
        sent = self.now()
        retry_after = math.nan
        try:
            async with self._session.post(self._url, data=body.content, allow_redirects=False) as answer:
                # Read to the end, when the request counts as answered, without keeping the content.
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
            self._inputs.append(body.inputs)
            self._retry.append(retry_after)
            self._lag.append(sent - meant)
            self._groups.append(body.group)
        elif status == OK:
            self._warm_finished.append(finished)
            self._warm_inputs.append(body.inputs)
        return status

    def load(self, seconds: float) -> Load:
        """Return all measurements over a window of `seconds`.

        Raises BentuneError if this machine could not send.
        """
        if self.broken is not None:
            raise self.broken
        started, latency, inputs = np.array(self._started), np.array(self._latency), np.array(self._inputs, np.int64)
        status = np.array(self._status, np.int64)
        warm_finished, warm_inputs = np.array(self._warm_finished), np.array(self._warm_inputs, np.int64)
        inside = (status == OK) & (started + latency <= seconds)
        warm_inside = (warm_finished >= 0) & (warm_finished <= seconds)
        return Load(
            started_s=started,
            latency_s=latency,
            status=status,
            inputs=inputs,
            group=np.array(self._groups, np.str_),
            retry_after_s=np.array(self._retry),
            lag_s=np.array(self._lag),
            seconds=seconds,
            answered=int(inside.sum() + warm_inside.sum()),
            answered_inputs=int(inputs[inside].sum() + warm_inputs[warm_inside].sum()),
            cpu_s=time.process_time() - self._cpu,
        )

    async def _tick(self) -> None:
        while self._progress is not None:
            self._progress(self.now() + self._warmup_s)
            await asyncio.sleep(PROGRESS_EVERY_S)


def _seconds_of(header: str | None) -> float:
    """Parse Retry-After in seconds; NaN for none and for a date."""
    return float(header) if header is not None and header.isdecimal() and len(header) <= 9 else math.nan


def _require(bodies: Sequence[Body], **positive: float) -> None:
    if not bodies:
        raise InputError("there is nothing to send: give at least one body")
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}; give a number above 0")


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Exclude existing objects from garbage collection, so that its pauses stay short."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
