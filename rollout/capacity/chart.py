"""Chart of a simulated curve as a PNG: requests, pods, and latency with its objective."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rollout.capacity.simulation import SimulationSeries
from rollout.capacity.sizing import Sizing
from rollout.load.chart import DPI, require_matplotlib, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (9.0, 8.0)
HOUR_S, MINUTE_S = 3600.0, 60.0
LONG_HOURS = 3


def draw_scaling(path: Path, series: SimulationSeries, sizing: Sizing, title: str) -> None:
    """Draw three panels over one time axis. Raises InputError without matplotlib."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = list(figure.subplots(3, 1, sharex=True))
    long = series.seconds[-1] > LONG_HOURS * HOUR_S
    times = series.seconds / (HOUR_S if long else MINUTE_S)
    rates, pods, latencies = panels

    rates.plot(times, series.rate, label="requests/s")
    rates.plot(
        times,
        series.ready * sizing.rate_per_pod,
        color="tab:green",
        linestyle=":",
        drawstyle="steps-post",
        label=f"held by ready pods at {sizing.objective}",
    )
    rates.fill_between(times, series.refused, color="tab:red", alpha=0.5, step="post", label="refused (429)")
    rates.set(ylabel="requests/s", title=title)

    pods.plot(times, series.wanted, drawstyle="steps-post", label="wanted by the autoscaler")
    pods.plot(times, series.ready, color="tab:green", drawstyle="steps-post", label="ready")
    for bound, name in ((sizing.scaling.min_replicas, "least"), (sizing.scaling.max_replicas, "most")):
        pods.axhline(bound, color="tab:gray", linestyle="--", linewidth=0.8, label=f"{name}: {bound}")
    pods.set(ylabel="pods")

    shown = np.where(series.latency_ms > 0, series.latency_ms, np.nan)
    latencies.plot(times, shown, label=f"{sizing.objective.percentile} of accepted requests")
    latencies.axhline(sizing.objective.limit_ms, color="tab:red", linestyle="--", label=f"objective {sizing.objective}")
    latencies.set_yscale("log")
    latencies.yaxis.set_major_formatter("{x:g}")
    latencies.set(ylabel="latency (ms)", xlabel="hours" if long else "minutes")

    for axes in (rates, pods):
        axes.set_ylim(bottom=0)
    for axes in panels:
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(loc="upper right", fontsize="small")
    save(figure, path)
