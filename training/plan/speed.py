"""Speed of a runtime configuration, measured with the service's scheduler and sessions on rows of the test set."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bentune.bundle.arrays import Float32s
from bentune.bundle.plan import Entry
from service.engine.engine import Engine
from service.engine.runtime import Runtime
from service.scheduling.queue import QueueLimits
from service.scheduling.scheduler import Observer, Scheduler
from service.tasks.task import Encoded, Task

CLIENTS_PER_SLOT = 16
LONE_ROWS = 20


@dataclass(frozen=True, slots=True)
class RowTraffic:
    """Requests to send: tokenized rows of the test set, repeated in one shuffled order."""

    tokens: Sequence[Encoded]
    seed: int

    def rows(self) -> Iterator[Encoded]:
        """Yield rows without end."""
        order = np.random.default_rng(self.seed).permutation(len(self.tokens))
        return itertools.cycle([self.tokens[row] for row in order])


class _Padding(Observer):
    """Counter of tokens in batches, with and without padding."""

    def __init__(self) -> None:
        self.tokens = 0
        self.padded_tokens = 0

    def batch_computed(self, n_items: int, tokens: int, padded_tokens: int, seconds: float) -> None:  # noqa: ARG002
        self.tokens += tokens
        self.padded_tokens += padded_tokens


def measure(
    model: Path, runtime: Runtime, task: Task, traffic: RowTraffic, padding_bound: float, seconds: float
) -> Entry:
    """Load `model`, keep every slot busy for `seconds`, then send single inputs.

    Each slot has CLIENTS_PER_SLOT closed-loop clients, which send one input at a time. The first fifth of the time is
    not counted.
    """
    engine = Engine(model, runtime, task)
    padding = _Padding()
    inputs_per_second, lone_s = asyncio.run(_run(engine, runtime, traffic, padding_bound, seconds, padding))
    return Entry(
        variant=runtime.variant,
        provider=runtime.provider,
        slots=runtime.slots,
        threads=runtime.threads,
        token_budget=runtime.token_budget,
        inputs_per_second=round(inputs_per_second, 2),
        lone_ms=round(1000 * lone_s, 2),
        padding=round(1 - padding.tokens / padding.padded_tokens, 4),
    )


async def _run(
    engine: Engine, runtime: Runtime, traffic: RowTraffic, padding_bound: float, seconds: float, padding: _Padding
) -> tuple[float, float]:
    clients = CLIENTS_PER_SLOT * runtime.slots
    limits = QueueLimits(clients, clients * max(len(row) for row in traffic.tokens))
    scheduler = engine.scheduler(runtime.token_budget, padding_bound, limits, padding)
    rows = traffic.rows()
    start = time.perf_counter()
    counted_from, end = start + seconds / 5, start + seconds
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            row = next(rows)
            await scheduler.submit([(row, len(row))])
            done += counted_from <= time.perf_counter() < end

    await asyncio.gather(*(client() for _ in range(clients)))
    lone = [await _timed(scheduler, row) for row in itertools.islice(rows, LONE_ROWS)]
    await scheduler.drain()
    return max(done, 1) / (end - counted_from), statistics.median(lone)


async def _timed(scheduler: Scheduler[Encoded, Float32s], row: Encoded) -> float:
    start = time.perf_counter()
    await scheduler.submit([(row, len(row))])
    return time.perf_counter() - start
