"""A small reverse proxy that sends each request to the next server in turn, as a Service does to pods."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from rollout.server.target import DEADLINE_HEADER

FORWARDED = ("content-type", DEADLINE_HEADER)
ANSWERED = ("content-type", "retry-after")


class RoundRobin:
    """The servers of `urls` in turn. Change `urls` at any time: requests that are under way are not touched."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self._turn = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve on a free port of this machine, and yield the address."""
        # Connections as many as it takes: what waits in here would be waiting that no server's metric shows.
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
        """Pass one request on and its answer back; 503 without a server, 502 when the server breaks off."""
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
