"""Tables of the rows for `bentune data`: cleaned, left out, split."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from training.pipeline.results import DataResult, SplitReport

SHOWN_LABELS = 30
SPLITS = {
    "label": "by label, seed {seed}",
    "group": "by {column}, each of its {groups:,} values on one side only, seed {seed}",
    "time": "by {column}, test set from {held_out_from} on",
    "hub": "as the hub has it: {test}",
}
RULES = {"control_characters": "control characters", "mojibake": "wrongly decoded", "html": "HTML tags or entities"}


def lines(result: "DataResult") -> Iterator[str | Table]:
    """Yield a line on the split, a table of changed rows, and one of labels."""
    kept = sum(result.rows.values())
    yield escape(f"  {result.read:,} rows read, {kept:,} used; split {_split(result.split)}")
    if result.cleaned or result.dropped:
        yield _treatment(result)
    labels = Table("label", *result.rows)
    for number, column in enumerate(labels.columns):
        column.justify = "right" if number else "left"
    for label in result.labels[:SHOWN_LABELS]:
        labels.add_row(escape(label), *(f"{counts.get(label, 0):,}" for counts in result.rows_by_label.values()))
    if (more := len(result.labels) - SHOWN_LABELS) > 0:
        labels.add_row(f"... and {more} more")
    if result.labels_a_row:
        labels.add_row("[dim]no label[/]", *(f"{one.without:,}" for one in result.labels_a_row.values()))
        labels.caption = "labels a row: " + ", ".join(
            f"{one.mean:.2f} {part}" for part, one in result.labels_a_row.items()
        )
    labels.add_section()
    labels.add_row("all", *(f"{rows:,}" for rows in result.rows.values()))
    yield labels


def _treatment(result: "DataResult") -> Table:
    table = Table("rows", "what", "done", "for example")
    table.columns[0].justify = "right"
    for rule, found in result.cleaned.items():
        how = "fixed" if found.effect == "fixed" else f"left as is; data.clean.{rule}: fix cleans them"
        table.add_row(f"{found.rows:,}", RULES[rule], how, escape(found.samples[0]))
    for reason, dropped in result.dropped.items():
        table.add_row(f"{dropped.rows:,}", escape(reason), "left out", escape(dropped.samples[0]))
    return table


def _split(split: "SplitReport") -> str:
    share = f"{split.test:.0%} " if isinstance(split.test, float) else ""
    new = "of new rows " if split.continued else ""
    return share + new + SPLITS[split.kind].format_map({**split.model_dump(), "groups": split.groups or 0})
