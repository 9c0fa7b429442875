"""Benchmark of the request path: uvicorn alone, BentoML without a model, and Bentune."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click
import httpx
from rich.table import Table

from benchmarks.command import Command, json_option, say, show
from benchmarks.process.worker import Worker, serving_with
from bentune.bundle.errors import BentuneError
from rollout.load.bench import ReportModel
from rollout.load.bodies import bodies_of, inputs_of_golden
from rollout.load.generator import LoadTarget, closed_loop
from rollout.load.generator import run as run_loop
from rollout.server.server import START_TIMEOUT_S, free_port, running
from rollout.server.target import bundle_of

HERE = Path(__file__).resolve().parent
CLIENTS = 32
WARMUP_S = 2.0
BARE = "uvicorn and Starlette alone"
# In the order of empty_service.VARIANTS. Importing that module would create a service.
VARIANTS = ("as it comes", "without access log", "without access log and tracing")


class Cost(ReportModel):
    """One server's CPU times in milliseconds per request: of the whole worker, and of its event loop's thread."""

    server: str
    requests_per_s: float
    cpu_ms: float
    loop_cpu_ms: float


class Endpoint(ReportModel):
    """All servers, the barest first; Bentune with its model last."""

    seconds: float
    costs: list[Cost]


def run(tag: str, *, seconds: float = 8.0, tell: Callable[[str], None] = say) -> Endpoint:
    """Load each server in turn with 32 clients.

    Every request carries the shortest golden text of the Bento `tag`. Raises BentuneError when a server does not start
    or does not answer.
    """
    texts = inputs_of_golden(bundle_of(tag).golden)
    [body] = bodies_of([min(texts, key=lambda text: len(text[0]) + len(text[1] or ""))], batch=1, seed=0)

    def measured(server: str, started: AbstractContextManager[tuple[LoadTarget, Worker]]) -> Cost:
        with started as (target, worker):
            run_loop(closed_loop(target, [body], clients=CLIENTS, seconds=WARMUP_S))
            cpu_s, loop_s = worker.cpu_s, worker.loop_cpu_s
            load = run_loop(closed_loop(target, [body], clients=CLIENTS, seconds=seconds))
            if not load.requests or not load.ok.all():
                raise BentuneError(f"{server}: not every request was answered 200: {load.statuses}")
            cost = Cost(
                server=server,
                requests_per_s=load.requests_per_s,
                cpu_ms=(worker.cpu_s - cpu_s) / load.requests * 1000,
                loop_cpu_ms=(worker.loop_cpu_s - loop_s) / load.requests * 1000,
            )
        tell(f"{server}: {cost.requests_per_s:.0f} requests/s, {cost.cpu_ms:.3f} ms of CPU each")
        return cost

    costs = [measured(BARE, _bare())]
    costs += [measured(f"BentoML {variant}", _empty(variant)) for variant in reversed(VARIANTS)]
    costs.append(measured(tag, _ours(tag)))
    return Endpoint(seconds=seconds, costs=costs)


@contextmanager
def _ours(tag: str) -> Iterator[tuple[LoadTarget, Worker]]:
    with serving_with(tag, 30_000, {}) as (served, worker):
        yield served.target, worker


@contextmanager
def _empty(variant: str) -> Iterator[tuple[LoadTarget, Worker]]:
    # Its own home: servers with the same home share a directory of metrics.
    with tempfile.TemporaryDirectory() as home:
        env = {"EMPTY_VARIANT": variant, "BENTOML_HOME": home}
        with running("empty_service:EmptyService", cwd=HERE, env=env) as url:
            yield LoadTarget(url), Worker.of_this_process()


@contextmanager
def _bare() -> Iterator[tuple[LoadTarget, Worker]]:
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "empty_service:bare"),
                *("--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"),
            ],
            cwd=HERE,
            env=os.environ | {"BENTOML_HOME": home},
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url)
            yield LoadTarget(url), Worker(process.pid)
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    ends = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            httpx.get(f"{url}/readyz", timeout=2)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise BentuneError(f"{BARE} did not start")


def table_of(result: Endpoint) -> Table:
    """Return the table with a row for each server.

    Each row has the server's CPU time relative to that of the barest.
    """
    table = Table(title=f"an endpoint, {CLIENTS} clients, {result.seconds:g} s each")
    for column in ("server", "requests/s", "CPU ms/request", "of its event loop", "relative to the first"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for cost in result.costs:
        table.add_row(
            cost.server,
            f"{cost.requests_per_s:.0f}",
            f"{cost.cpu_ms:.3f}",
            f"{cost.loop_cpu_ms:.3f}",
            f"{cost.loop_cpu_ms / result.costs[0].loop_cpu_ms:.2f}",
        )
    return table


@click.command(cls=Command)
@click.argument("tag")
@click.option(
    "--seconds", default=8.0, show_default=True, type=click.FloatRange(1), help="Seconds of load for each server."
)
@json_option
def main(tag: str, seconds: float, json_path: Path | None) -> None:
    """Measure empty endpoints, and the Bento TAG with its shortest text."""
    result = run(tag, seconds=seconds)
    show(result, table_of(result), json_path)


if __name__ == "__main__":
    main()
