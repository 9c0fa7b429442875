"""Report of the plan: tables, the reasons of the choice, and the Pareto plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from bentune.bundle.errors import InputError
from bentune.bundle.plan import Check, Entry, Plan
from training.pipeline.layout import PlanFiles
from training.plan.contention import MAX_CONTENTION

CHECK_COLUMNS = ("variant", "provider", "MB", "accuracy", "points lost", "label flips", "in batches", "verdict")
ENTRY_COLUMNS = (
    "variant",
    "provider",
    "slots x threads",
    "token budget",
    "inputs/s",
    "lone text ms",
    "padding",
    "rounds",
)


def explanation(directory: Path) -> tuple[Plan, list[Table | str]]:
    """Read the plan of a stage's `directory`, with its tables and reasons.

    Raises InputError without a plan.
    """
    file = PlanFiles(directory).plan
    if not file.is_file():
        raise InputError(f"{file} does not exist: run `bentune plan` first, or `bentune run`")
    plan = Plan.model_validate_json(file.read_bytes())
    return plan, [checks_table(plan.checks), entries_table(plan), escape(verdict(plan))]


def checks_table(checks: Sequence[Check]) -> Table:
    """Tabulate the accuracy of each variant."""
    table = Table(title=f"variants on {checks[0].rows} test rows (95% intervals)")
    for name in CHECK_COLUMNS:
        table.add_column(name)
    for found in checks:
        table.add_row(*check_cells(found), "[red]refused" if found.problem else "[green]pass")
    return table


def entries_table(plan: Plan) -> Table:
    """Tabulate the measurements, the winner first."""
    table = Table(title=f"measured on {_where(plan)}")
    for name in ENTRY_COLUMNS:
        table.add_column(name)
    for entry in plan.measured:
        table.add_row(*entry_cells(entry))
    return table


def verdict(plan: Plan) -> str:
    """Explain the choice, one line for the winner and one for each other variant."""
    best = plan.measured[0]
    flips = {(found.variant, found.provider): found.label_flips or 0 for found in plan.checks}
    lines = [
        f"{best.variant} on {best.provider} wins with {best.inputs_per_second:.0f} inputs/s: {best.slots} slots of "
        f"{best.threads} threads, batches of at most {best.token_budget} tokens"
    ]
    for found in plan.checks:
        key = (found.variant, found.provider)
        if key == (best.variant, best.provider):
            continue
        what = f"{found.variant} on {found.provider}"
        if found.problem:
            lines.append(f"{what} was refused: {found.problem}")
            continue
        entry = best_of(plan, found)
        ratio = entry.inputs_per_second / best.inputs_per_second
        line = f"{what} lost: {entry.inputs_per_second:.0f} inputs/s, {ratio:.2f} x the winner's"
        if found.alone:
            line += ", one row at a time because its answers depend on the batch"
        if ratio > 1:
            changed = flips[best.variant, best.provider]
            line += f"; that is a tie, but it changes {flips[key]} of fp32's labels, the winner {changed}"
        lines.append(line)
    if plan.taken > MAX_CONTENTION:
        lines.append(
            f"other programs kept {plan.taken:.0%} of the cores busy meanwhile, so another variant may be the fastest: "
            "measure again on an idle machine (`bentune plan RECIPE --force`, or `bentune retrain ... --replan`)"
        )
    return "\n".join(lines)


def best_of(plan: Plan, found: Check) -> Entry:
    """Return the fastest entry of a variant that passed its checks.

    Entries with more cores, then those with more rounds, take precedence.
    """
    entries = [one for one in plan.measured if (one.variant, one.provider) == (found.variant, found.provider)]
    return max(entries, key=lambda one: (one.cores, one.rounds, one.inputs_per_second))


def markdown(plan: Plan) -> str:
    """Render the whole plan as a Markdown page, which shows pareto.png beside it."""
    checks = [[*check_cells(found), found.problem or "pass"] for found in plan.checks]
    entries = [entry_cells(entry) for entry in plan.measured]
    parts = [
        "# Runtime plan",
        f"Measured on {_where(plan)}.",
        *(f"- {line}" for line in verdict(plan).splitlines()),
        "",
        "![accuracy and speed of each variant](pareto.png)",
        "",
        *_markdown_table(CHECK_COLUMNS, checks),
        "",
        *_markdown_table(ENTRY_COLUMNS, entries),
    ]
    return "\n".join(parts) + "\n"


def draw_pareto(plan: Plan, target: Path) -> None:
    """Plot accuracy against speed, with the Pareto front.

    Each point is the best entry of a variant on a provider.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    points = pareto_points(plan)
    for point in points:
        error = [[point.accuracy - point.low], [point.high - point.accuracy]]
        at, marker = (point.speed, point.accuracy), "*" if point.chosen else "o"
        axes.errorbar(*at, yerr=error, fmt=marker, markersize=12 if point.chosen else 7, capsize=3)
        label = f"{point.variant}\n{short_provider(point.provider)}"
        axes.annotate(label, at, xytext=(8, 6), textcoords="offset points", fontsize=8)
    front = [(point.speed, point.accuracy) for point in pareto_front(points)]
    axes.plot(*zip(*front, strict=True), linestyle=":", color="grey", zorder=0)
    axes.set_xlabel("inputs a second, every slot busy")
    axes.set_ylabel("accuracy on the test set, %")
    axes.set_title(f"Runtime plan on {_where(plan)}", fontsize=10)
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    figure.savefig(target, dpi=120)


class Point(NamedTuple):
    """Best entry of a variant: inputs a second, and accuracy in percent with the ends of its interval."""

    variant: str
    provider: str
    speed: float
    accuracy: float
    low: float
    high: float
    chosen: bool


def pareto_points(plan: Plan) -> list[Point]:
    """Build a point for every variant and provider that passed its checks."""
    points = []
    for found in plan.checks:
        if found.problem or found.accuracy is None:
            continue
        accuracy = 100 * found.accuracy
        reference = accuracy + (found.accuracy_loss or 0.0)
        points.append(
            Point(
                found.variant,
                found.provider,
                best_of(plan, found).inputs_per_second,
                accuracy,
                min(accuracy, reference - (found.loss_high or 0.0)),
                max(accuracy, reference - (found.loss_low or 0.0)),
                (found.variant, found.provider) == (plan.variant, plan.provider),
            )
        )
    return points


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Select the points that no other point beats, slowest first."""
    front = [point for point in points if not any(_beats(other, point) for other in points)]
    return sorted(front, key=lambda point: (point.speed, point.accuracy))


def _beats(one: Point, other: Point) -> bool:
    at, beaten = (one.speed, one.accuracy), (other.speed, other.accuracy)
    return at != beaten and at[0] >= beaten[0] and at[1] >= beaten[1]


def _where(plan: Plan) -> str:
    return f"{plan.cpu.model}, {plan.cpu.cores} cores" if plan.cpu else "an unknown CPU"


def short_provider(provider: str) -> str:
    """Shorten a provider's name by the common suffix."""
    return provider.removesuffix("ExecutionProvider")


def check_cells(found: Check) -> list[str]:
    """Format a check for CHECK_COLUMNS, without the last column."""
    name = f"{found.variant} ({' and '.join(found.kept_fp32)} in fp32)" if found.kept_fp32 else found.variant
    provider = short_provider(found.provider)
    if found.accuracy is None:
        return [name, provider, f"{found.megabytes:.0f}", "", "", "", ""]
    batches = f"{found.batch_flips} flips, {found.batch_difference:.2g}" + (": alone" if found.alone else "")
    loss = f"{found.accuracy_loss:.2f}  [{found.loss_low:.2f}, {found.loss_high:.2f}]"
    flips = str(found.label_flips)
    return [name, provider, f"{found.megabytes:.0f}", f"{found.accuracy:.3f}", loss, flips, batches]


def entry_cells(entry: Entry) -> list[str]:
    """Format an entry for ENTRY_COLUMNS."""
    return [
        entry.variant,
        short_provider(entry.provider),
        f"{entry.slots} x {entry.threads}",
        str(entry.token_budget),
        f"{entry.inputs_per_second:.1f}",
        f"{entry.lone_ms:.1f}",
        f"{entry.padding:.3f}",
        str(entry.rounds),
    ]


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |" for row in cells]
