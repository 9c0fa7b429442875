"""The report's plots: SVG in the page's colors and font, with the same bytes for the same facts."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bentune.bundle.plan import Plan
from bentune.quality.statistics.calibration import Bin
from training.data.report import DataReport
from training.pipeline.results import CurvePoint
from training.plan.report import pareto_front, pareto_points, short_provider
from training.report.facts import PARTS, spelled

SIZE_INCHES = (4.6, 2.9)
"""Narrow, so that its letters can be read on a phone."""

# Colors that occur nowhere else; they are replaced by the page's variables, so that dark mode changes them.
COLOURS = {"ink": "#010101", "soft": "#020202", "line": "#030303", "bar": "#040404", "second": "#050505"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bentune",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a label may hold dollars
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.edgecolor": COLOURS["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
LINES = ((COLOURS["bar"], "-"), (COLOURS["second"], "--"), (COLOURS["ink"], ":"), (COLOURS["soft"], "-."))
MARKERS = "osD^vPX<>"
MARKED = 12
"""Largest number of points of a curve that shows each point."""


class Plot(NamedTuple):
    """An SVG element, its text for screen readers, and its caption."""

    svg: str
    alt: str
    caption: str


class Series(NamedTuple):
    """A line of a plot."""

    name: str
    steps: list[int]
    values: list[float]


def curves(points: Sequence[CurvePoint], kept: int | None = None, name: str = "") -> list[Plot]:
    """Draw loss, metrics of the validation rows and learning rate over the steps.

    A value that was not logged has no plot. `kept` is the step whose weights were kept. `name` distinguishes the plots
    of several trainings.
    """
    loss = [_series(points, "training rows", "loss"), _series(points, "validation rows", "eval_loss")]
    rate = [_series(points, "learning rate", "learning_rate")]
    names = dict.fromkeys(key for point in points for key in point.metrics)
    metrics = [_metric(points, key) for key in names if not key.endswith("loss")]
    wanted = [
        (f"{name}loss", loss, "Loss"),
        (f"{name}metrics", metrics, "Metrics of the validation rows"),
        (f"{name}rate", rate, "Learning rate"),
    ]
    return [
        _curve(place, [line for line in lines if line.steps], caption, kept)
        for place, lines, caption in wanted
        if any(line.steps for line in lines)
    ]


def _series(points: Sequence[CurvePoint], name: str, key: str) -> Series:
    logged = [(point.step, getattr(point, key)) for point in points if getattr(point, key) is not None]
    return Series(name, [step for step, _ in logged], [value for _, value in logged])


def _metric(points: Sequence[CurvePoint], key: str) -> Series:
    logged = [(point.step, point.metrics[key]) for point in points if key in point.metrics]
    return Series(spelled(key), [step for step, _ in logged], [value for _, value in logged])


def _curve(place: str, lines: Sequence[Series], caption: str, kept: int | None) -> Plot:
    validated = "validation" in caption or len(lines) > 1

    def paint(axes: Axes) -> None:
        for line, (colour, dashes) in zip(lines, itertools.cycle(LINES)):
            marker = "o" if len(line.steps) <= MARKED else ""
            axes.plot(line.steps, line.values, dashes, color=colour, marker=marker, markersize=4, label=line.name)
        if kept and validated:
            axes.axvline(kept, color=COLOURS["soft"], linewidth=1, linestyle=":", zorder=0, label=f"kept: step {kept}")
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not place.endswith("metrics"):
            axes.set_ylim(0, 1.08 * max(max(line.values) for line in lines) or 1)
        if len(lines) > 1 or (kept and validated):
            axes.legend()

    said = [
        f"{line.name} from {line.values[0]:.3g} at step {line.steps[0]} to {line.values[-1]:.3g} at {line.steps[-1]}"
        for line in lines
    ]
    best = [f"the weights of step {kept} were kept"] if kept and validated else []
    return Plot(_draw(place, paint), f"{caption}: {'; '.join([*said, *best])}", caption)


def lengths(report: DataReport) -> list[Plot]:
    """Draw a histogram of the words of a row for each part, with the same bins."""
    return [
        _histogram(f"words-{name}", report.word_edges, part.words.counts, f"Words in a row: {PARTS.get(name, name)}")
        for name, part in report.parts.items()
    ]


def _histogram(name: str, edges: Sequence[int], counts: Sequence[int], caption: str) -> Plot:
    """Draw a histogram whose last bin is open above.

    `edges` are evenly spaced lower bounds.
    """
    width = edges[1] - edges[0] if len(edges) > 1 else 1

    def paint(axes: Axes) -> None:
        axes.bar(edges, counts, width, align="edge", color=COLOURS["bar"], edgecolor="none")
        axes.grid(visible=False, axis="x")
        axes.set(xlabel=f"words; the last bar is {edges[-1]:,} or more", ylabel="rows")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    most = max(range(len(counts)), key=lambda number: counts[number])
    alt = f"{caption}: {sum(counts):,} rows, most of them ({counts[most]:,}) from {edges[most]:,} words on"
    return Plot(_draw(name, paint), alt, caption)


def reliability(models: Mapping[str, Sequence[Bin]], caption: str) -> Plot:
    """Draw accuracy against confidence, each bin as a dot at its means.

    A dot grows with the number of rows in its bin.
    """
    known = {
        name: [(one.confidence or 0.0, one.accuracy or 0.0, one.rows) for one in bins if one.rows]
        for name, bins in models.items()
    }
    most = max(rows for bins in known.values() for _, _, rows in bins)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], ":", color=COLOURS["soft"], linewidth=1.2, label="perfect calibration")
        for (name, bins), (colour, dashes), marker in zip(known.items(), LINES, MARKERS, strict=False):
            confidence, accuracy, rows = zip(*bins, strict=True)
            axes.plot(confidence, accuracy, dashes, color=colour, label=name)
            sizes = [12 + 90 * math.sqrt(count / most) for count in rows]
            axes.scatter(confidence, accuracy, s=sizes, color=colour, marker=marker, zorder=3, alpha=0.8)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="accuracy")
        axes.legend(loc="upper left")

    said = [
        f"{name}: {'; '.join(f'{right:.0%} right where {sure:.0%} sure ({rows:,} rows)' for sure, right, rows in bins)}"
        for name, bins in known.items()
    ]
    return Plot(_draw("reliability", paint), f"{caption}; {'. '.join(said)}", caption)


def heat_map(confusion: Sequence[Sequence[int]], caption: str) -> Plot:
    """Draw a confusion matrix without its numbers.

    A cell is darker the larger its share of the gold label is.
    """

    def paint(axes: Axes) -> None:
        axes.grid(visible=False)
        for gold, row in enumerate(confusion):
            for predicted, count in enumerate(row):
                if count:
                    place, share = (predicted - 0.5, gold - 0.5), count / sum(row)
                    axes.add_patch(Rectangle(place, 1, 1, facecolor=COLOURS["bar"], alpha=share, edgecolor="none"))
        end = len(confusion) - 0.5
        axes.set(xlim=(-0.5, end), ylim=(end, -0.5), aspect="equal", xlabel="predicted", ylabel="gold")

    right, rows = sum(row[label] for label, row in enumerate(confusion)), sum(map(sum, confusion))
    return Plot(
        _draw("confusion", paint), f"{caption}: {right:,} of {rows:,} rows are on the diagonal, which is right", caption
    )


def pareto(plan: Plan) -> Plot:
    """Draw accuracy against speed for the best entry of each variant.

    The line connects the points that no other point beats.
    """
    points = pareto_points(plan)

    def paint(axes: Axes) -> None:
        front = pareto_front(points)
        axes.plot([one.speed for one in front], [one.accuracy for one in front], ":", color=COLOURS["soft"], zorder=0)
        for one, marker in zip(points, itertools.cycle(MARKERS)):
            colour = COLOURS["second"] if one.chosen else COLOURS["bar"]
            error = [[one.accuracy - one.low], [one.high - one.accuracy]]
            shape, size = ("*", 12) if one.chosen else (marker, 6)
            label = f"{one.variant}, {short_provider(one.provider)}"
            axes.errorbar(
                one.speed, one.accuracy, error, fmt=shape, markersize=size, capsize=3, color=colour, label=label
            )
        axes.set(xlabel="inputs a second, every slot busy", ylabel="accuracy, %")
        axes.margins(0.15)
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize="small")

    said = [
        f"{one.variant} on {short_provider(one.provider)} {one.accuracy:.1f} % at {one.speed:.0f} inputs a second"
        for one in points
    ]
    caption = "Accuracy and speed of each variant; the star was chosen"
    return Plot(_draw("pareto", paint), f"{caption}: {'; '.join(said)}", caption)


def _draw(name: str, paint: Callable[[Axes], None]) -> str:
    """Return the <svg> that `paint` draws, with ids that begin with `name`."""
    content = io.StringIO()
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's font lacks some glyphs; the browser's font has them
        figure = Figure(figsize=SIZE_INCHES)
        paint(figure.subplots())
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(content, format="svg", transparent=True, metadata=nothing)
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<(metadata|style).*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]*; ", "", svg)
    svg = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", svg)
    # Without width and height, only the viewBox remains, and the plot fills its column.
    svg = re.sub(r'^<svg width="[^"]*" height="[^"]*"', "<svg", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg
