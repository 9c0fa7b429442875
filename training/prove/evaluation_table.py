"""The evaluation for people: metrics before and after, slices, and rows whose answer changed."""

from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table

from bentune.quality.bootstrap import Interval
from bentune.quality.classification import Classification
from training.prove.evaluation import SMALL, Changed, Evaluation, Slice

METRICS: dict[str, Callable[[Classification], Interval | None]] = {
    "accuracy": lambda found: found.accuracy,
    "macro_f1": lambda found: found.macro_f1,
    "micro_f1": lambda found: found.micro_f1 if found.hamming_loss else None,
    "hamming_loss": lambda found: found.hamming_loss,
    "average_precision": lambda found: found.average_precision,
    "mcc": lambda found: found.mcc,
    "roc_auc": lambda found: found.roc_auc,
    "mean_absolute_error": lambda found: found.mean_absolute_error,
    "log_loss": lambda found: found.log_loss,
    "brier": lambda found: found.brier,
    "calibration error": lambda found: found.calibration.error,
}


def metrics_table(evaluation: Evaluation) -> Table:
    """Every metric that the rows have, base beside tuned."""
    sides = {"base": evaluation.base, "tuned": evaluation.tuned}
    tuned = evaluation.tuned
    table = Table(title=f"{tuned.rows} held-out rows ({tuned.confidence:.0%} intervals)")
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
            "calibration error": scaled.before.error,
        }
    for name, metric in METRICS.items():
        values = [metric(side) for side in sides.values()]
        if any(value is not None for value in values):
            shown = [*values, unscaled.get(name)] if evaluation.temperature else values
            table.add_row(name, *map(_cell, shown))
    for label, found in tuned.per_class.items():
        cells = [evaluation.base.per_class[label], found]
        table.add_row(
            f"  {escape(label)} ({found.support})",
            *(f"P {cell.precision.value:.2f}  R {cell.recall.value:.2f}" for cell in cells),
        )
    return table


def slices_table(slices: Sequence[Slice]) -> Table:
    """A line a slice, in the order of the columns."""
    ordinal = any(one.mean_absolute_error is not None for one in slices)
    table = Table(title="the tuned model by column")
    names = ("column", "value", "rows", "accuracy", "macro_f1", "calibration error")
    for name in (*names, *(["mean_absolute_error"] if ordinal else [])):
        table.add_column(name, justify="left" if name in names[:2] else "right")
    for one in slices:
        cells = [one.accuracy, one.macro_f1, one.calibration_error]
        cells += [one.mean_absolute_error] if one.mean_absolute_error is not None else []
        rows = f"{one.rows} (few)" if one.small else str(one.rows)
        table.add_row(escape(one.by), escape(one.value), rows, *map(_cell, cells), style="dim" if one.small else "")
    if any(one.small for one in slices):
        table.caption = f"few: under {SMALL} rows, which say little"
    return table


def changed_table(changed: Sequence[Changed]) -> Table:
    """Rows whose answer changed."""
    table = Table(title="rows whose answer changed", show_lines=False)
    table.add_column("text", no_wrap=True, overflow="ellipsis", max_width=60)
    for name in ("gold", "base", "tuned"):
        table.add_column(name, overflow="fold", min_width=8)
    for row in changed:
        table.add_row(*map(escape, (" ".join(row.text.split()), row.gold, row.base, row.tuned)))
    return table


def _cell(value: Interval | None) -> str:
    return "" if value is None else f"{value.value:.3f}  [{value.low:.3f}, {value.high:.3f}]"
