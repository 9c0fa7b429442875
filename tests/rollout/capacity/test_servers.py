"""A server that is started on cores of its own sees those, and leaves them to the next."""

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web
from http_server import serving

from rollout.capacity.servers import RoundRobin, pinned

SEES = "import os; print(sorted(os.sched_getaffinity(0)))"
CORES = sorted(os.sched_getaffinity(0))


@contextmanager
def launch() -> Iterator[str]:
    yield subprocess.run([sys.executable, "-c", SEES], capture_output=True, text=True, check=True).stdout.strip()


def test_each_has_its_own_cores_and_this_thread_keeps_its() -> None:
    start = pinned(launch, [{CORES[0]}, {CORES[-1]}])
    with start() as one, start() as two:
        assert (one, two) == (str([CORES[0]]), str([CORES[-1]]))
        assert sorted(os.sched_getaffinity(0)) == CORES
    with start() as again:
        assert again == str([CORES[-1]])


def test_without_free_cores_it_waits() -> None:
    start = pinned(launch, [{CORES[0]}])
    seen: list[str] = []

    def second() -> None:
        with start() as cores:
            seen.append(cores)

    waiting = threading.Thread(target=second)
    with start():
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert seen == [str([CORES[0]])]


async def echo(request: web.Request) -> web.Response:
    deadline = request.headers.get("X-Request-Timeout-Ms", "")
    text = f"{request.host} {request.path_qs} {deadline} {await request.text()}"
    return web.Response(status=429, text=text, headers={"Retry-After": "7", "X-Private": "1"})


async def ask(address: str) -> tuple[int, str, str | None, bool]:
    headers = {"X-Request-Timeout-Ms": "50", "Cookie": "no"}
    async with aiohttp.ClientSession() as session, session.post(f"{address}/p?q=1", data="hi", headers=headers) as got:
        return got.status, await got.text(), got.headers.get("Retry-After"), "X-Private" in got.headers


def test_in_turn_and_whole() -> None:
    async def run(urls: list[str]) -> list[tuple[int, str, str | None, bool]]:
        proxy = RoundRobin()
        async with proxy.listening() as address:
            none = await ask(address)
            proxy.urls = urls
            answers = [await ask(address) for _ in range(6)]
            proxy.urls = ["http://127.0.0.1:1"]
            return [none, *answers, await ask(address)]

    with serving(echo) as one, serving(echo) as two:
        none, *answers, gone = asyncio.run(run([one, two]))
    assert (none[0], gone[0]) == (503, 502)
    hosts = Counter(text.split()[0] for _, text, _, _ in answers)
    assert hosts == {one.removeprefix("http://"): 3, two.removeprefix("http://"): 3}
    for status, text, retry_after, private in answers:
        assert (status, retry_after, private) == (429, "7", False)
        assert text.endswith(" /p?q=1 50 hi")
