"""Arrivals are Poisson, the same for the same seed, and the pacer keeps to them."""

import asyncio
import time

import numpy as np
import pytest

from rollout.load.arrivals import arrivals, keep_to


def test_arrivals_are_poisson() -> None:
    times = arrivals(100, 400, seed=0)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(40_000, rel=0.02)
    assert gaps.mean() == pytest.approx(0.01, rel=0.02)
    # The variance of an exponential distribution is the mean squared, and neighbours are independent.
    assert gaps.var() == pytest.approx(0.01**2, rel=0.05)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.02
    counts = np.histogram(times, bins=400, range=(0, 400))[0]
    assert counts.var() == pytest.approx(100, rel=0.25)


def test_a_seed_gives_its_times_again() -> None:
    assert (arrivals(50, 3, seed=1) == arrivals(50, 3, seed=1)).all()
    assert arrivals(50, 3, seed=1)[0] != arrivals(50, 3, seed=2)[0]
    assert len(arrivals(0.001, 1, seed=0)) == 0


def test_the_pacer_keeps_to_the_times_even_while_the_loop_is_slow() -> None:
    times = [0.02, 0.03, 0.2]

    async def pace() -> list[tuple[float, float]]:
        zero, called = time.perf_counter(), []
        await keep_to(times, zero, lambda at: called.append((at, time.perf_counter() - zero)))
        return called

    called = asyncio.run(pace())
    assert [at for at, _ in called] == times
    assert all(0 <= really - at < 0.1 for at, really in called)


def test_a_cancelled_pacer_stops_at_once() -> None:
    async def pace() -> None:
        await asyncio.wait_for(keep_to([60.0], time.perf_counter(), lambda at: None), 0.1)

    started = time.perf_counter()
    with pytest.raises(TimeoutError):
        asyncio.run(pace())
    assert time.perf_counter() - started < 5
