"""Tables of the evaluation: metrics before and after, slices, and rows whose answer changed."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from bentune.quality.classification import ClassMetrics
from bentune.quality.quality import Report
from bentune.quality.statistics.bootstrap import Interval
from training.prove.evaluation import SMALL, Changed, Evaluation, Slice


def metrics_table(evaluation: Evaluation) -> Table:
    """Tabulate every available metric of the base and the tuned model."""
    sides = {"base": evaluation.base, "tuned": evaluation.tuned}
    tuned = evaluation.tuned
    table = Table(title=f"{tuned.rows} test rows ({tuned.confidence:.0%} intervals)")
    table.add_column("metric")
    for name in sides:
        table.add_column(name, justify="right")
    unscaled: dict[str, Interval] = {}
    if (scaled := evaluation.temperature) is not None:
        table.add_column("before the temperature", justify="right")
        table.caption = f"temperature {scaled.temperature:.3f}, fitted on {scaled.rows} validation rows"
        unscaled = {
            "log_loss": scaled.log_loss_before,
            "brier": scaled.brier_before,
            "calibration_error": scaled.before.error,
        }
    metrics = {side: report.metrics for side, report in sides.items()}
    for name in dict.fromkeys(name for found in metrics.values() for name in found):
        values = [found.get(name) for found in metrics.values()]
        shown = [*values, unscaled.get(name)] if evaluation.temperature else values
        table.add_row(name, *map(_cell, shown))
    for label, found in per_class(tuned).items():
        cells = [per_class(evaluation.base)[label], found]
        table.add_row(
            f"  {escape(label)} ({found.support})",
            *(f"P {cell.precision.value:.2f}  R {cell.recall.value:.2f}" for cell in cells),
        )
    return table


def slices_table(slices: Sequence[Slice]) -> Table:
    """Tabulate the slices, in the order of the columns."""
    table = Table(title="the tuned model by column")
    metrics = list(dict.fromkeys(name for one in slices for name in one.metrics))
    for name in ("column", "value", "rows", *metrics):
        table.add_column(name, justify="left" if name in ("column", "value") else "right")
    for one in slices:
        cells = [one.metrics.get(name) for name in metrics]
        rows = f"{one.rows} (few)" if one.small else str(one.rows)
        table.add_row(escape(one.by), escape(one.value), rows, *map(_cell, cells), style="dim" if one.small else "")
    if any(one.small for one in slices):
        table.caption = f"few: fewer than {SMALL} rows, too few for a conclusion"
    return table


def per_class(report: Report) -> dict[str, ClassMetrics]:
    """Return the metrics of each label, empty for a report without labels."""
    return getattr(report, "per_class", {})


def changed_table(changed: Sequence[Changed]) -> Table:
    """Tabulate the rows whose answer changed."""
    table = Table(title="rows whose answer changed", show_lines=False)
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=60)
    for name in ("gold", "base", "tuned"):
        table.add_column(name, overflow="fold", min_width=8)
    for row in changed:
        table.add_row(*map(escape, (" ".join(row.text.split()), row.gold, row.base, row.tuned)))
    return table


def _cell(value: Interval | None) -> str:
    return "" if value is None else f"{value.value:.3f}  [{value.low:.3f}, {value.high:.3f}]"
