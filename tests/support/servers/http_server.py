"""A small real HTTP server in a thread, whose answers a test decides: what the load generator is measured against."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.Response]]


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Answer every request with `answer` and yield the address.

    `answer` runs on a loop of its own.
    """
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    address: list[str] = []
    started = threading.Event()

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)  # type: ignore[arg-type]
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    started.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class OneWorker:
    """Answers one request at a time, each after `service_s`; refuses with 429 when `room` others wait."""

    def __init__(self, service_s: float, room: int = 1_000_000) -> None:
        self.service_s = service_s
        self.room = room
        self.bodies: list[bytes] = []
        self.open = self.most_open = 0
        self._free_at = 0.0

    async def __call__(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(status=404)
        self.bodies.append(await request.read())
        if self.open > self.room:
            return web.Response(status=429, headers={"Retry-After": "3"})
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            # A reservation rather than a lock: the timer's lateness does not add up, so the capacity is exact.
            self._free_at = max(time.monotonic(), self._free_at) + self.service_s
            await asyncio.sleep(self._free_at - time.monotonic())
        finally:
            self.open -= 1
        return web.json_response([])
