"""Command `bench`: load test of one or two servers, or search for a capacity."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from bentune.bundle.errors import GateError, InputError
from bentune.console import ConsoleReporter
from bentune.options import json_option, require_place

if TYPE_CHECKING:
    from rollout.load.bench import Pattern
    from rollout.load.bodies import Text
    from rollout.load.generator import Body
    from rollout.load.slo import Objective
    from rollout.server.target import Served

DEFAULT_CLIENTS = 8
MAX_SECONDS = 86_400
MAX_RATE = 100_000


@click.command()
@click.argument("target")
@click.option("--input", "input_path", type=click.Path(path_type=Path), help="CSV, TSV, JSONL or TXT with the texts.")
@click.option("--text-column", help="Column of the text.  [default: the Bento's own, or text]")
@click.option("--pair-column", help="Column of the second text, for a model of pairs.")
@click.option(
    "--clients", type=click.IntRange(min=1), help=f"Closed loop: concurrent requests.  [default: {DEFAULT_CLIENTS}]"
)
@click.option(
    "--rate", type=click.FloatRange(0, MAX_RATE, min_open=True), help="Open loop: requests per second, at random times."
)
@click.option("--compare", "other", metavar="TARGET", help="Second server, loaded in turns with the first.")
@click.option("--find-knee", is_flag=True, help="Find the highest rate that holds --slo and write capacity.json.")
@click.option("--slo", metavar="P=TIME", help="Latency objective such as p99=200ms; exit code 1 if missed.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Texts per request.")
@click.option(
    "--seconds",
    default=15.0,
    show_default=True,
    type=click.FloatRange(0.5, MAX_SECONDS),
    help="Seconds to measure each server.",
)
@click.option(
    "--warmup",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0, MAX_SECONDS),
    help="Seconds of load before the measurement.",
)
@click.option(
    "--timeout-ms",
    default=30_000,
    show_default=True,
    type=click.IntRange(1, 600_000),
    help="Timeout of a request, in ms.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of arrivals and order.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Directory for the JSON and the PNG.")
@json_option
def bench(
    target: str,
    input_path: Path | None,
    text_column: str | None,
    pair_column: str | None,
    clients: int | None,
    rate: float | None,
    other: str | None,
    find_knee: bool,
    slo: str | None,
    batch: int,
    seconds: float,
    warmup: float,
    timeout_ms: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Load-test a server or a Bento.

    TARGET is the address of a server, or a Bento, which is started and stopped. Without --input, the golden rows inside
    the Bento are sent.
    """
    from rollout.load.bench import Pattern, require_answer
    from rollout.load.bodies import bodies_of
    from rollout.load.slo import parse_objective
    from rollout.server.target import serving

    objective = parse_objective(slo) if slo is not None else None
    _require_numbers(rate=rate, seconds=seconds, warmup=warmup)
    _require_sense(clients, rate, other, objective, find_knee=find_knee)
    if out is not None:
        require_place(out)
    texts = _texts(target, input_path, text_column, pair_column, seed)
    bodies = bodies_of(texts, batch=batch, seed=seed)
    closed = clients or (None if rate else DEFAULT_CLIENTS)
    pattern = Pattern(clients=closed, rate=rate, seconds=seconds, warmup_s=warmup, seed=seed)
    report = ConsoleReporter(as_json=as_json)
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(name, timeout_ms)) for name in (target, other) if name is not None]
        for served in servers:
            require_answer(served, bodies[0])
        if find_knee and objective is not None:
            _find_knee(report, servers[0], bodies, objective, pattern, out)
        else:
            _bench(report, servers, bodies, objective, pattern, out)


def _bench(
    report: ConsoleReporter,
    servers: "list[Served]",
    bodies: "list[Body]",
    objective: "Objective | None",
    pattern: "Pattern",
    out: Path | None,
) -> None:
    from bentune.bundle.files import write_json
    from bentune.bundle.hardware import describe
    from rollout.load.bench import BenchReport, compare, judge, measure, now, ratios
    from rollout.load.tables import bench_table, title, warnings

    if len(servers) == 2:
        rounds = [*compare(servers[0], servers[1], bodies, pattern, report)]
    else:
        rounds = [measure(servers[0], bodies, pattern, report)]
    measured = [each.measured() for each in rounds]
    verdict = judge(objective, measured[0]) if objective else None
    found = BenchReport(
        created_at=now(),
        pattern=pattern,
        inputs_per_request=bodies[0].inputs,
        bodies=len(bodies),
        servers=measured,
        ratios=ratios(rounds[0], rounds[1]) if len(rounds) == 2 else {},
        objective=verdict,
        cpu=describe(),
    )
    report.say(bench_table(found))
    for warning in warnings(found):
        report.say(f"[yellow]![/] {escape(warning)}")
    if out is not None:
        from rollout.load.chart import draw_latency

        write_json(out / "bench.json", found)
        draw_latency(out / "bench.png", {each.served.label: each.whole for each in rounds}, title(found))
        report.say(f"[green]✓[/] {escape(str(out / 'bench.json'))}, {escape(str(out / 'bench.png'))}")
    if verdict is not None and not verdict.held:
        raise GateError(
            str(verdict.objective),
            f"{measured[0].server}: {verdict.objective.percentile} was {verdict.measured_ms:.1f} ms, "
            f"over the objective of {verdict.objective.limit_ms:g} ms",
        )
    report.result(found.model_dump(mode="json"))


def _find_knee(
    report: ConsoleReporter,
    served: "Served",
    bodies: "list[Body]",
    objective: "Objective",
    pattern: "Pattern",
    out: Path | None,
) -> None:
    from bentune.bundle.files import write_json
    from bentune.bundle.hardware import describe
    from rollout.load.knee import find_knee
    from rollout.load.tables import capacity_table

    capacity = find_knee(served, bodies, objective, pattern, cpu=describe(), tell=report.say)
    path = (out or Path()) / "capacity.json"
    write_json(path, capacity)
    report.say(capacity_table(capacity))
    report.say(f"[green]✓[/] {escape(str(path))}")
    if out is not None:
        from rollout.load.chart import draw_knee

        draw_knee(out / "capacity.png", capacity)
        report.say(f"[green]✓[/] {escape(str(out / 'capacity.png'))}")
    report.result(capacity.model_dump(mode="json"))


def _require_numbers(**values: float | None) -> None:
    """Raise InputError for a value that is nan, which click accepts in any range."""
    for name, value in values.items():
        if value is not None and math.isnan(value):
            raise InputError(f"--{name} is no number; give one")


def _require_sense(
    clients: int | None, rate: float | None, other: str | None, objective: "Objective | None", *, find_knee: bool
) -> None:
    if clients is not None and rate is not None:
        raise InputError(f"--clients {clients} is a closed loop and --rate {rate:g} an open one; give one of them")
    if not find_knee:
        return
    if objective is None:
        raise InputError("--find-knee needs the objective to hold; give --slo, for example --slo p99=200ms")
    for name, value in (("--clients", clients), ("--rate", rate), ("--compare", other)):
        if value is not None:
            raise InputError(f"{name} {value}: --find-knee chooses the load of one server itself; leave {name} out")


def _texts(
    target: str, input_path: Path | None, text_column: str | None, pair_column: str | None, seed: int
) -> "list[Text]":
    from rollout.load.bodies import inputs_of_golden, texts_of_file
    from rollout.server.target import bundle_of, is_address

    bundle = None if is_address(target) else bundle_of(target)
    if input_path is not None:
        columns = bundle.manifest.columns if bundle else None
        text = text_column or (columns.text if columns else "text")
        return texts_of_file(input_path, text, pair_column or (columns.text_pair if columns else None), seed)
    if bundle is None:
        raise InputError(
            f"{target} is an address, and has no texts to send; give --input with a CSV, TSV, JSONL or TXT file"
        )
    return inputs_of_golden(bundle.golden)
