"""Servers for a run of the autoscaler on one machine: Bentos on their own cores, behind a proxy."""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from queue import SimpleQueue
from typing import TypeAlias

import aiohttp
from aiohttp import web

from rollout.server.target import DEADLINE_HEADER, serving

FORWARDED = ("content-type", DEADLINE_HEADER)
ANSWERED = ("content-type", "retry-after")

Launch: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Function that starts one server, yields its address once it is ready, and stops it; called in threads."""


def bento(tag: str, timeout_ms: int = 30_000) -> Launch:
    """Return a function that serves the Bento `tag`."""

    @contextmanager
    def launch() -> Iterator[str]:
        with serving(tag, timeout_ms) as served:
            yield served.target.url

    return launch


def pinned(launch: Launch, cores: Sequence[set[int]]) -> Launch:
    """Return `launch`, pinned to the first free set of `cores`, numbers of CPUs.

    It waits for a free set, as a pending pod does. A server counts the cores of its affinity and derives its slots
    and threads from them. Linux only.
    """
    free: SimpleQueue[set[int]] = SimpleQueue()
    for each in cores:
        free.put(each)

    @contextmanager
    def on_cores_of_its_own() -> Iterator[str]:
        with ExitStack() as stack:
            mine = free.get()
            stack.callback(free.put, mine)
            # This changes this thread alone, and the processes that it starts inherit it.
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, mine)
            try:
                url = stack.enter_context(launch())
            finally:
                os.sched_setaffinity(0, before)
            yield url

    return on_cores_of_its_own


class RoundRobin:
    """Reverse proxy that sends each request to the next of `urls`, as a Service does to pods.

    `urls` may change at any time; open requests are not affected.
    """

    def __init__(self) -> None:
        self.urls: list[str] = []
        self._turn = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve on a free port of this machine and yield the address."""
        # No limit of connections: requests that wait in the proxy would be missing in the servers' metrics.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self._session:
            runner = web.ServerRunner(web.Server(self), shutdown_timeout=1.0)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
            finally:
                await runner.cleanup()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward one request and its answer.

        The status is 503 without a server, and 502 when the connection to the server fails.
        """
        if not self.urls:
            return web.Response(status=503)
        self._turn += 1
        url = self.urls[self._turn % len(self.urls)]
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        try:
            body = await request.read()
            async with self._session.request(
                request.method, url + request.path_qs, data=body, headers=headers, allow_redirects=False
            ) as answer:
                kept = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except aiohttp.ClientError:
            return web.Response(status=502)
