"""Benchmark of the service under three times its capacity, and with clients that disconnect."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click
import numpy as np
from rich.table import Table

from benchmarks.command import Command, json_option, say, show
from benchmarks.overload_report import (
    Disconnects,
    Memory,
    Overload,
    Saturation,
    failed,
    kept_share,
    retry_honesty,
    table_of,
    useful_per_s,
)
from benchmarks.process.worker import MemoryWatch, Worker, machine_cpu_s, serving_with, sleep_until
from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.hardware import visible_cores
from bentune.bundle.manifest import Bundle
from rollout.load.bench import require_answer
from rollout.load.bodies import bodies_of, inputs_of_golden
from rollout.load.generator import Body, Load, closed_loop, open_loop
from rollout.load.generator import run as run_loop
from rollout.load.latency import Latency
from rollout.server.scrape import MetricsReading, read_metrics
from rollout.server.target import DEADLINE_HEADER, Served, bundle_of
from service.tasks.registry import task_of

CLIENTS = 32
"""Clients of the closed loops that measure the capacity, enough for full batches."""
QUEUE_SHARE = 0.5
"""Largest queue, as a share of the tokens computed within a deadline. The rest is for computing and jitter."""
RECOVERY_S = 10.0
WARMUP_SHARE = 0.2
"""Warm-up as a share of a closed loop's length."""
COMPUTED = "bentune_batch_requests_sum"
GONE = "cancelled"
ANY_NUMBER = "1000000"


def fitted_queue(tokens_per_s: float, deadline_s: float, least: float) -> int:
    """Return the bound of queued tokens that lets accepted requests meet the deadline.

    Raises InputError below `least`.
    """
    tokens = QUEUE_SHARE * tokens_per_s * deadline_s
    if tokens < least:
        raise InputError(
            f"a deadline of {deadline_s:g} s leaves room for {tokens:.0f} waiting tokens, and {CLIENTS} clients need "
            f"{least:.0f}: give a longer --deadline-ms"
        )
    return int(tokens)


def run(
    tag: str,
    *,
    multiple: float = 3.0,
    seconds: float = 60.0,
    deadline_ms: int = 10_000,
    fit_queue: bool = True,
    leavers: int = 100,
    step_s: float = 10.0,
    recovery_s: float = RECOVERY_S,
    tell: Callable[[str], None] = say,
) -> Overload:
    """Overload the Bento `tag`. Without `fit_queue` its queue keeps the default bound.

    `step_s` is the length in seconds of the closed loops before and after. Raises BentuneError when the server does not
    start.
    """
    bundle = bundle_of(tag)
    bodies = bodies_of(inputs_of_golden(bundle.golden), batch=1, seed=0)
    settings = {"BENTUNE_REQUEST_TIMEOUT_MS": str(deadline_ms)}
    queue_tokens = None
    if fit_queue:
        mean_tokens = _mean_tokens(bundle)
        with serving_with(tag, deadline_ms, {}) as (served, _):
            rate = _closed(served, bodies, CLIENTS, step_s).requests_per_s
        tell(f"{rate:.1f} requests/s of {mean_tokens:.0f} tokens: the queue is bounded to suit {deadline_ms} ms")
        queue_tokens = fitted_queue(rate * mean_tokens, deadline_ms / 1000, CLIENTS * mean_tokens)
        settings |= {"BENTUNE_QUEUE_TOKENS": str(queue_tokens), "BENTUNE_QUEUE_INPUTS": ANY_NUMBER}
    with serving_with(tag, deadline_ms, settings) as (served, worker):
        require_answer(served, bodies[0])
        saturated, capacity = _watched(worker, lambda: _closed(served, bodies, CLIENTS, step_s))
        normal = Latency.of(_closed(served, bodies, 1, step_s)).p50
        before_mb, rate = worker.rss_mb, multiple * saturated.requests_per_s
        filling_s = min(QUEUE_SHARE * deadline_ms / 1000, seconds / 4)
        run_loop(open_loop(served.target, bodies, rate=rate, seconds=filling_s))
        once_full_mb = worker.rss_mb
        tell(f"{saturated.requests_per_s:.1f} requests/s at most; now {rate:.1f} a second for {seconds:g} s")
        ends = time.monotonic() + seconds
        with MemoryWatch(worker) as memory:
            load, overloaded = _watched(
                worker, lambda: run_loop(open_loop(served.target, bodies, rate=rate, seconds=seconds))
            )
        sleep_until(ends + recovery_s)
        recovered = Latency.of(_closed(served, bodies, 1, step_s)).p50
        after_mb = worker.rss_mb
        tell(f"{leavers} clients disconnect while {CLIENTS} other clients are served")
        disconnects = _disconnects(served, bodies, leavers, step_s / 2)
    if normal is None or recovered is None:
        raise BentuneError(f"{tag}: no response with status 200 to a lone client")
    return Overload(
        tag=tag,
        cores=visible_cores(),
        multiple=multiple,
        seconds=seconds,
        deadline_ms=deadline_ms,
        queue_tokens=queue_tokens,
        capacity_per_s=saturated.requests_per_s,
        useful_per_s=useful_per_s(load, deadline_ms / 1000),
        kept_share=kept_share(load, deadline_ms / 1000),
        failed=failed(load),
        statuses={str(status): count for status, count in load.statuses.items()},
        latency_ms=Latency.of(load),
        retry_after=retry_honesty(load),
        memory=Memory(before_mb=before_mb, once_full_mb=once_full_mb, peak_mb=memory.peak_mb, after_mb=after_mb),
        normal_p50_ms=normal,
        recovered_p50_ms=recovered,
        disconnects=disconnects,
        at_capacity=capacity,
        overloaded=overloaded,
        generator_lag_p99_ms=float(np.percentile(load.lag_s, 99)) * 1000 if load.requests else 0.0,
    )


def _mean_tokens(bundle: Bundle) -> float:
    encoder = task_of(bundle).encoder
    return float(np.mean([len(encoder.encode(row.text, row.text_pair, truncate=True)) for row in bundle.golden]))


def _closed(served: Served, bodies: Sequence[Body], clients: int, seconds: float) -> Load:
    return run_loop(
        closed_loop(served.target, bodies, clients=clients, seconds=seconds, warmup_s=WARMUP_SHARE * seconds)
    )


def _watched(worker: Worker, work: Callable[[], Load]) -> tuple[Load, Saturation]:
    """Run a load and return it with the mean number of busy cores.

    The cores are measured from the start of the load until its last answer.
    """
    start, cpu_s, loop_s, machine_s = time.monotonic(), worker.cpu_s, worker.loop_cpu_s, machine_cpu_s()
    load = work()
    elapsed, worker_s = time.monotonic() - start, worker.cpu_s - cpu_s
    return load, Saturation(
        generator=load.cpu_s / elapsed,
        event_loop=(worker.loop_cpu_s - loop_s) / elapsed,
        worker=worker_s / elapsed,
        others=(machine_cpu_s() - machine_s - worker_s - load.cpu_s) / elapsed,
    )


def _disconnects(served: Served, bodies: Sequence[Body], leavers: int, seconds: float) -> Disconnects:
    """Serve CLIENTS clients while `leavers` more send a request and disconnect.

    The result counts the texts that were computed for disconnected clients.
    """

    async def leave() -> None:
        await asyncio.sleep(seconds / 2)
        await asyncio.gather(*(_send_and_close(served, bodies[n % len(bodies)]) for n in range(leavers)))

    async def both() -> Load:
        load, _ = await asyncio.gather(
            closed_loop(served.target, bodies, clients=CLIENTS, seconds=seconds),
            leave(),
        )
        return load

    before = _reading(served)
    load = run_loop(both())
    after = _settled(served)
    return Disconnects(
        leavers=leavers,
        counted=int(after.rejected.get(GONE, 0) - before.rejected.get(GONE, 0)),
        computed_for_nobody=int(after.values[COMPUTED] - before.values[COMPUTED]) - int(load.ok.sum()),
    )


async def _send_and_close(served: Served, body: Body) -> None:
    address = urlsplit(served.target.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    headers: Mapping[str, str] = {
        "host": address.netloc,
        "content-type": "application/json",
        "content-length": str(len(body.content)),
        DEADLINE_HEADER: served.target.headers[DEADLINE_HEADER],
    }
    lines = [f"POST {served.target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body.content)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


def _reading(served: Served) -> MetricsReading:
    reading = read_metrics(served.target.url)
    if reading is None:
        raise BentuneError(f"{served.label}: no metrics")
    return reading


def _settled(served: Served) -> MetricsReading:
    """Wait until the server is idle and return its metrics.

    Raises BentuneError after the timeout of a request.
    """
    ends = time.monotonic() + served.target.timeout_s
    while time.monotonic() < ends:
        reading = _reading(served)
        if not reading.values["bentune_queue_requests"] and not reading.values["bentune_slots_busy"]:
            return reading
        time.sleep(0.1)
    raise BentuneError(f"{served.label}: still busy long after the load ended")


@click.command(cls=Command)
@click.argument("tag")
@click.option(
    "--multiple", default=3.0, show_default=True, type=click.FloatRange(1), help="Load as a multiple of the capacity."
)
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1), help="Seconds of overload.")
@click.option(
    "--deadline-ms", default=10_000, show_default=True, type=click.IntRange(1, 600_000), help="Deadline of a request."
)
@click.option("--as-it-comes", is_flag=True, help="Keep the service's default bounds of the queue.")
@json_option
def main(
    tag: str, multiple: float, seconds: float, deadline_ms: int, as_it_comes: bool, json_path: Path | None
) -> None:
    """Overload the Bento TAG in its own server and print which promises held.

    Exit code 1 unless all promises held.
    """
    result = run(tag, multiple=multiple, seconds=seconds, deadline_ms=deadline_ms, fit_queue=not as_it_comes)
    table: Table = table_of(result)
    show(result, table, json_path)
    raise SystemExit(0 if all(check.held for check in result.checks) else 1)


if __name__ == "__main__":
    main()
