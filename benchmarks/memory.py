"""Benchmark of the worker's memory over a hundred thousand requests, relative to the warmed-up worker."""

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import click
from pydantic import computed_field
from rich.table import Table

from benchmarks.command import Command, json_option, say, show
from benchmarks.peers.model_directory import write_model_directory
from benchmarks.peers.peers import INSTALLED, TEXTBOOK
from benchmarks.peers.peers import running as peer_running
from benchmarks.process.worker import MemoryWatch, Worker, serving_with
from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import Bundle
from rollout.load.bench import ReportModel, require_answer
from rollout.load.bodies import Text, bodies_of, inputs_of_golden
from rollout.load.generator import Body, LoadTarget, closed_loop
from rollout.load.generator import run as run_loop
from rollout.server.target import Served, bundle_of

CLIENTS = 32
WARMUP = 2_000
POINTS = 5
MAX_GROWTH = 1.05
TEXTS = 5_000
LIST = 128
PEER_REQUESTS = 500
TIMEOUT_MS = 60_000
NO_LIMIT_S = 86_400.0


class MemoryPoint(ReportModel):
    """Resident memory of the worker after a number of requests, without the warm-up."""

    requests: int
    rss_mb: float


class Footprint(ReportModel):
    """One server's memory: `points` begins at the end of the warm-up; `peak_mb` is the largest sample."""

    server: str
    points: list[MemoryPoint]
    peak_mb: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def growth(self) -> float:
        """Largest point relative to the first."""
        return max(point.rss_mb for point in self.points) / self.points[0].rss_mb


class MemoryReport(ReportModel):
    """Memory of both servers; `textbook` is None if it was not measured."""

    ours: Footprint
    textbook: Footprint | None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def flat(self) -> bool:
        """True if Bentune's worker grew by at most MAX_GROWTH after the warm-up."""
        return self.ours.growth <= MAX_GROWTH

    @computed_field  # type: ignore[prop-decorator]
    @property
    def of_textbook(self) -> float | None:
        """Bentune's peak relative to the textbook's."""
        return self.ours.peak_mb / self.textbook.peak_mb if self.textbook else None


def mixed_texts(texts: Sequence[Text], count: int, seed: int) -> list[Text]:
    """Return `count` beginnings of `texts`, from one word to all.

    Almost no two batches then have the same shape.
    """
    generator = random.Random(seed)  # noqa: S311 (draws texts, not secrets)
    mixed: list[Text] = []
    for _ in range(count):
        text, pair = generator.choice(texts)
        words = text.split()
        mixed.append((" ".join(words[: generator.randint(1, max(1, len(words)))]) or text, pair))
    return mixed


def run(
    tag: str,
    *,
    requests: int = 100_000,
    warmup: int = WARMUP,
    textbook_run: Path | None = None,
    tell: Callable[[str], None] = say,
) -> MemoryReport:
    """Measure the memory of the Bento `tag`.

    With `textbook_run`, the textbook service is measured too, with the weights of that run. Raises BentuneError when a
    server does not start or a request is not answered 200.
    """
    bundle = bundle_of(tag)
    texts = inputs_of_golden(bundle.golden)
    bodies = bodies_of(mixed_texts(texts, TEXTS, seed=0), batch=1, seed=0)
    with serving_with(tag, TIMEOUT_MS, {}) as (served, worker):
        require_answer(served, bodies[0])
        ours = _footprint(served.label, served.target, worker, bodies, warmup, requests, tell)
    textbook = None if textbook_run is None else _textbook(textbook_run, bundle, texts, tell)
    return MemoryReport(ours=ours, textbook=textbook)


def _footprint(
    name: str,
    target: LoadTarget,
    worker: Worker,
    bodies: Sequence[Body],
    warmup: int,
    requests: int,
    tell: Callable[[str], None],
) -> Footprint:
    points: list[MemoryPoint] = []
    with MemoryWatch(worker) as watch:
        done = -warmup
        for part in (warmup, *parts_of(requests, POINTS)):
            # Each part begins where the one before it ended, so that parts send different texts.
            start = (done + warmup) % len(bodies)
            _send(target, [*bodies[start:], *bodies[:start]], part)
            done += part
            points.append(MemoryPoint(requests=done, rss_mb=worker.rss_mb))
            tell(f"{name}: {points[-1].rss_mb:.0f} MB after {done} requests")
    return Footprint(server=name, points=points, peak_mb=watch.peak_mb)


def parts_of(requests: int, points: int) -> list[int]:
    """Divide `requests` into at most `points` parts of similar size, none empty."""
    bounds = [round(requests * n / points) for n in range(points + 1)]
    return [end - start for start, end in pairwise(bounds) if end > start]


def _textbook(run_dir: Path, bundle: Bundle, texts: Sequence[Text], tell: Callable[[str], None]) -> Footprint | None:
    if not (TEXTBOOK.environment / INSTALLED).is_file():
        tell("the textbook service is not installed")
        return None
    max_tokens = bundle.manifest.limits.max_tokens
    bodies = textbook_bodies(bodies_of(mixed_texts(texts, PEER_REQUESTS, seed=1), batch=1, seed=0))
    long_list = textbook_bodies(bodies_of(mixed_texts(texts, LIST, seed=2), batch=LIST, seed=0))
    with tempfile.TemporaryDirectory() as name:
        model = write_model_directory(run_dir, Path(name) / "model", max_tokens)
        with peer_running(TEXTBOOK, model, max_tokens) as url:
            target = LoadTarget(url.removesuffix(TEXTBOOK.path), TEXTBOOK.path, TIMEOUT_MS / 1000)
            require_answer(Served(TEXTBOOK.name, target, None), bodies[0])
            worker = Worker.of_this_process()
            with MemoryWatch(worker) as watch:
                _send(target, long_list, 1)
                listed = MemoryPoint(requests=0, rss_mb=worker.rss_mb)
                _send(target, bodies, PEER_REQUESTS)
                mixed = MemoryPoint(requests=PEER_REQUESTS, rss_mb=worker.rss_mb)
    tell(f"{TEXTBOOK.name}: {listed.rss_mb:.0f} MB after a list of {LIST}, {mixed.rss_mb:.0f} MB in the end")
    return Footprint(server=TEXTBOOK.name, points=[listed, mixed], peak_mb=watch.peak_mb)


def textbook_bodies(bodies: Sequence[Body]) -> list[Body]:
    """Return the same bodies in the textbook service's format: lists of strings."""
    asked = [(json.loads(body.content)["inputs"], body.inputs) for body in bodies]
    return [
        Body(json.dumps(TEXTBOOK.body([inputs] if isinstance(inputs, str) else inputs)).encode(), texts)
        for inputs, texts in asked
    ]


def _send(target: LoadTarget, bodies: Sequence[Body], requests: int) -> None:
    load = run_loop(closed_loop(target, bodies, clients=CLIENTS, seconds=NO_LIMIT_S, requests=requests))
    if not load.ok.all():
        raise BentuneError(f"{target.url}: not every request was answered 200: {load.statuses}")


def table_of(report: MemoryReport) -> Table:
    """Return the table with a row for each point of both servers."""
    table = Table(title="resident memory of the worker, MB")
    for column in ("server", "requests", "MB", "relative to the first"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for footprint in (report.ours, report.textbook):
        if footprint is None:
            continue
        for point in footprint.points:
            by_first = point.rss_mb / footprint.points[0].rss_mb
            table.add_row(footprint.server, str(point.requests), f"{point.rss_mb:.0f}", f"{by_first:.3f}")
        table.add_row(footprint.server, "peak", f"{footprint.peak_mb:.0f}", "")
        table.add_section()
    verdict = "[green]held[/]" if report.flat else "[red]missed[/]"
    table.add_row(f"flat within {MAX_GROWTH - 1:.0%}", "", f"{report.ours.growth:.3f}", verdict)
    if report.of_textbook is not None:
        table.add_row("peak relative to the textbook's", "", f"{report.of_textbook:.3f}", "")
    return table


@click.command(cls=Command)
@click.argument("tag")
@click.option(
    "--requests", default=100_000, show_default=True, type=click.IntRange(1), help="Requests after the warm-up."
)
@click.option(
    "--warmup", default=WARMUP, show_default=True, type=click.IntRange(1), help="Requests before the measurement."
)
@click.option(
    "--textbook",
    "textbook_run",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the run that made TAG: also measure its weights in the textbook service, if that is installed.",
)
@json_option
def main(tag: str, requests: int, warmup: int, textbook_run: Path | None, json_path: Path | None) -> None:
    """Measure the memory of the Bento TAG over many short and long requests.

    Exit code 1 if it grows by more than 5 %.
    """
    report = run(tag, requests=requests, warmup=warmup, textbook_run=textbook_run)
    show(report, table_of(report), json_path)
    raise SystemExit(0 if report.flat else 1)


if __name__ == "__main__":
    main()
