"""Charts of a load test as PNGs: latency curves of servers, and the rates of a capacity search."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bentune.bundle.errors import InputError
from bentune.bundle.files import atomic_write
from rollout.load.generator import Load
from rollout.load.knee import Capacity
from rollout.load.latency import curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (8.0, 5.0)
DPI = 120
TICKS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
POINTS = 200
"""Points of each curve, evenly spaced on the axis."""


def require_matplotlib() -> None:
    """Raise InputError with the way to install matplotlib, before a measurement."""
    _figure()


def require_directory(out: Path) -> None:
    """Create the directory of results if it is missing. Raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); give another directory") from None


def draw_latency(path: Path, loads: Mapping[str, Load], title: str) -> None:
    """Draw latency by percentile, one line per server.

    On the axis of percentiles each nine has the same width.
    """
    figure, axes = _figure()
    last = 0
    for label, load in loads.items():
        # Beyond this percentile there is less than one request.
        nines = np.log10(max(int(load.ok.sum()), 2))
        percents = 100 * (1 - 10 ** -np.linspace(0, nines, POINTS))
        axes.plot(np.linspace(0, nines, POINTS), _floats(curve(load, percents.tolist())), label=label)
        last = max(last, nines)
    shown = [tick for tick in TICKS if _nines(tick) <= last]
    axes.set_xticks([_nines(tick) for tick in shown], [f"{tick:g}%" for tick in shown])
    axes.set(xlabel="percentile of requests", ylabel="latency (ms)", title=title, xlim=(0, last))
    axes.set_ylim(bottom=0)
    _finish(figure, axes, path)


def draw_knee(path: Path, capacity: Capacity) -> None:
    """Draw latency by rate: the rates tried, the rate found, and the objective."""
    figure, axes = _figure()
    objective = capacity.objective
    for holds, color, label in ((True, "tab:green", "holds"), (False, "tab:red", "does not hold")):
        trials = [trial for trial in capacity.trials if trial.holds is holds]
        latencies = _floats([objective.measured_ms(trial.latency_ms) for trial in trials])
        axes.scatter([trial.rate for trial in trials], latencies, color=color, label=label, zorder=3)
    axes.axhline(objective.limit_ms, color="tab:red", linestyle="--", label=f"objective {objective}")
    axes.axvline(
        capacity.rate_per_pod, color="tab:green", linestyle=":", label=f"{capacity.rate_per_pod:.1f} requests/s"
    )
    axes.set_yscale("log")
    for formatted in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatted("{x:g}")
    axes.set(
        xlabel="rate (requests/s)",
        ylabel=f"{objective.percentile} latency (ms)",
        title=f"{capacity.server}: {capacity.rate_per_pod:.1f} requests/s at {objective}",
    )
    _finish(figure, axes, path)


def _figure() -> "tuple[Figure, Axes]":
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            "the PNG needs matplotlib, which is not installed: pip install 'bentune[bench]', or leave out --out"
        ) from None
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _finish(figure: "Figure", axes: "Axes", path: Path) -> None:
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    save(figure, path)


def save(figure: "Figure", path: Path) -> None:
    """Write a PNG atomically."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _nines(percent: float) -> float:
    return float(-np.log10(1 - percent / 100))


def _floats(values: list[float | None]) -> Any:
    return np.array([np.nan if value is None else value for value in values], float)
