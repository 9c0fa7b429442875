"""Bentos that each have cores of their own, as pods have, on one machine: what a real run of the autoscaler starts."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from queue import SimpleQueue
from typing import TypeAlias

from rollout.server.target import serving

Launch: TypeAlias = Callable[[], AbstractContextManager[str]]
"""Starts one server, yields its address once it is ready, and stops it at the end; called in threads."""


def bento(tag: str, timeout_ms: int = 30_000) -> Launch:
    """Starts the Bento `tag`."""

    @contextmanager
    def launch() -> Iterator[str]:
        with serving(tag, timeout_ms) as served:
            yield served.target.url

    return launch


def pinned(launch: Launch, cores: Sequence[set[int]]) -> Launch:
    """The same on the first free set of `cores`, numbers of CPUs; without a free one it waits, as a pending pod does.

    A server counts as many cores as its affinity has, and chooses its slots and threads by them. Linux only.
    """
    free: SimpleQueue[set[int]] = SimpleQueue()
    for each in cores:
        free.put(each)

    @contextmanager
    def on_cores_of_its_own() -> Iterator[str]:
        with ExitStack() as stack:
            mine = free.get()
            stack.callback(free.put, mine)
            # Of this thread alone; the processes that it starts inherit it.
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, mine)
            try:
                url = stack.enter_context(launch())
            finally:
                os.sched_setaffinity(0, before)
            yield url

    return on_cores_of_its_own
