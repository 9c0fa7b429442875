"""Command `capacity`: sizing of pods and autoscaler from a measured capacity."""

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from bentune.bundle.errors import GateError, InputError
from bentune.console import ConsoleReporter
from bentune.options import json_option, require_place

if TYPE_CHECKING:
    from rollout.capacity.traffic import Traffic

MAX_RATE = 10_000_000
_MEMORY = re.compile(r"[1-9][0-9]{0,14}(?:\.[0-9]{1,3})?(?:Ki|Mi|Gi|Ti|k|M|G|T)?")


@click.command()
@click.argument("capacity_file", metavar="CAPACITY.json", type=click.Path(path_type=Path))
@click.option("--slo", required=True, metavar="P=TIME", help="Latency objective, no stricter than the measured one.")
@click.option(
    "--peak", required=True, type=click.FloatRange(0, MAX_RATE, min_open=True), help="Requests a second at the peak."
)
@click.option(
    "--startup", type=click.FloatRange(0, 3600), help="Seconds until a new pod is ready.  [default: as measured]"
)
@click.option(
    "--traffic",
    default="daily",
    show_default=True,
    metavar="NAME|FILE.csv",
    help="Curve of the traffic: step, ramp, spike, daily, or a CSV.",
)
@click.option(
    "--headroom", default=0.8, show_default=True, type=float, help="Share of its capacity that a pod is planned for."
)
@click.option("--min", "least", type=click.IntRange(min=1), help="Fewest pods.  [default: those for the traffic]")
@click.option("--cpu", type=click.FloatRange(0, 1024, min_open=True), help="Cores of a pod.  [default: as measured]")
@click.option("--memory", help="Memory of a pod, for example 1Gi.  [default: as measured]")
@click.option(
    "--autoscaler",
    "scaler",
    default="hpa",
    show_default=True,
    type=click.Choice(["hpa", "keda"]),
    help="Autoscaler to patch.",
)
@click.option("--play", metavar="BENTO", help="Also run the traffic against real servers of this Bento here.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Directory for the patches, the JSON and the PNG."
)
@json_option
def capacity(
    capacity_file: Path,
    slo: str,
    peak: float,
    startup: float | None,
    traffic: str,
    headroom: float,
    least: int | None,
    cpu: float | None,
    memory: str | None,
    scaler: str,
    play: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Size pods and an autoscaler, and simulate them.

    `bentune bench --find-knee` writes CAPACITY.json, the measured capacity of one pod. The built-in curves of the
    traffic go up to --peak; a CSV has the columns seconds,rate. The BENTUNE_ settings of the service are read from the
    environment.

    --play takes as long as the traffic: it starts and stops servers as the autoscaler would, each on its own cores.

    Exit code 1 if the simulation misses the objective; the files are written anyway.
    """
    from bentune.bundle.files import write_json
    from rollout.capacity.patch import write_patches
    from rollout.capacity.play_bento import play_bento
    from rollout.capacity.pod_model import PodModel
    from rollout.capacity.simulation import simulate
    from rollout.capacity.sizing import CapacityPlan, TrafficSummary, habits, read_capacity, size
    from rollout.capacity.tables import compared_table, outcome_table, sizing_table, warnings
    from rollout.load.slo import parse_objective
    from service.settings import Settings

    objective = parse_objective(slo)
    for name, value in {"peak": peak, "startup": startup, "headroom": headroom, "cpu": cpu}.items():
        if value is not None and math.isnan(value):
            raise InputError(f"--{name} is no number; give one")
    if memory is not None and not _MEMORY.fullmatch(memory):
        raise InputError(f"--memory {memory}: is no amount of memory; write for example 512Mi or 2Gi")
    measured = read_capacity(capacity_file)
    curve, settings = _traffic(traffic, peak), Settings.from_env(os.environ)
    sizing = size(
        measured,
        objective,
        curve,
        peak=peak,
        settings=settings,
        startup_s=startup,
        headroom=headroom,
        least=least,
        cpu=cpu,
        memory=memory,
    )
    if out is not None:
        require_place(out)
    report = ConsoleReporter(as_json=as_json)
    compared = play_bento(play, measured, sizing, curve, settings) if play is not None else None
    outcome, series = simulate(PodModel.of(measured), sizing.scaling, curve, objective, habits(sizing))
    plan = CapacityPlan(
        server=measured.server,
        model=measured.model,
        measured=measured.objective,
        sizing=sizing,
        traffic=TrafficSummary(name=curve.name, seconds=curve.duration_s, lowest=curve.lowest, highest=curve.highest),
        simulated=outcome,
        played=compared,
    )
    report.say(sizing_table(plan))
    report.say(outcome_table(plan))
    if compared is not None:
        report.say(compared_table(compared, sizing))
    for warning in warnings(plan, startup_known=not (startup is None and measured.startup_s is None)):
        report.say(f"[yellow]![/] {escape(warning)}")
    directory = out or Path()
    because = f"{peak:g} requests/s at {objective}, {sizing.rate_per_pod:.1f} requests/s a pod ({measured.server})"
    written = write_patches(directory, sizing, because, scaler)
    if out is not None:
        from rollout.capacity.chart import draw_scaling

        draw_scaling(out / "scaling.png", series, sizing, f"{curve.name}: {because}")
        written.append(out / "scaling.png")
    # Written last: if this file exists, the other files do too.
    write_json(directory / "capacity-plan.json", plan)
    written.append(directory / "capacity-plan.json")
    report.say(f"[green]✓[/] {escape(', '.join(map(str, written)))}")
    if not outcome.held:
        raise GateError(
            str(objective),
            f"the simulated traffic does not hold {objective}: {outcome.violated_s:.0f} s of it missed; give more pods "
            "with --min, or a lower --headroom",
        )
    report.result(plan.model_dump(mode="json"))


def _traffic(name: str, peak: float) -> "Traffic":
    from rollout.capacity.traffic import BUILT_IN, built_in, read_traffic

    return built_in(name, peak) if name in BUILT_IN else read_traffic(Path(name))
