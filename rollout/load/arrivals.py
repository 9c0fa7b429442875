"""Arrivals of an open loop: Poisson times drawn in advance, and a thread that keeps to them."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def arrivals(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Draw Poisson arrival times from 0 to `seconds`, with `rate` arrivals a second."""
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.exponential(1 / rate, size=int(rate * seconds * 1.1) + 50))
    while times[-1] < seconds:
        times = np.append(times, times[-1] + np.cumsum(generator.exponential(1 / rate, size=len(times))))
    kept: NDArray[np.float64] = times[times < seconds]
    return kept


async def keep_to(times: Sequence[float], zero: float, start: Callable[[float], None]) -> None:
    """Call `start(time)` on this loop at each of `times`.

    Times are seconds after `zero` on the clock of time.perf_counter. A thread waits for them: event loops count in
    whole milliseconds, longer than a small model computes.
    """
    loop = asyncio.get_running_loop()
    ended, stopped = loop.create_future(), threading.Event()

    def pace() -> None:
        for at in times:
            while (wait_s := zero + at - time.perf_counter()) > 0:
                if stopped.wait(wait_s):
                    return
            if stopped.is_set():
                return
            loop.call_soon_threadsafe(start, at)
        loop.call_soon_threadsafe(ended.set_result, None)

    pacer = threading.Thread(target=pace, name="arrivals", daemon=True)
    pacer.start()
    try:
        await ended
    finally:
        stopped.set()
        pacer.join()
