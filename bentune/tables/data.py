"""Tables of the data stage: cleaning, dropped rows and split."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

SHOWN_LABELS = 30
SPLITS = {
    "label": "by label, seed {seed}",
    "group": "by {column}, no value of it on two sides ({groups:,} of them), seed {seed}",
    "time": "by {column}, held out is the newest from {held_out_from} on",
    "hub": "as the hub has it: {test}",
}
RULES = {"control_characters": "control characters", "mojibake": "wrongly decoded", "html": "HTML tags or entities"}


def lines(summary: Mapping[str, Any]) -> Iterator[str | Table]:
    """Yield the lines and tables of the data stage's `summary`: split, changes of rows, labels."""
    kept = sum(summary["rows"].values())
    yield escape(f"  {summary['read']:,} rows read, {kept:,} used; split {_split(summary['split'])}")
    if summary["cleaned"] or summary["dropped"]:
        yield _treatment(summary)
    labels = Table("label", *summary["rows"])
    for number, column in enumerate(labels.columns):
        column.justify = "right" if number else "left"
    for label in summary["labels"][:SHOWN_LABELS]:
        labels.add_row(escape(label), *(f"{counts.get(label, 0):,}" for counts in summary["rows_by_label"].values()))
    if (more := len(summary["labels"]) - SHOWN_LABELS) > 0:
        labels.add_row(f"... and {more} more")
    if summary.get("labels_a_row"):
        labels.add_row("[dim]no label[/]", *(f"{one['without']:,}" for one in summary["labels_a_row"].values()))
        labels.caption = "labels a row: " + ", ".join(
            f"{one['mean']:.2f} {part}" for part, one in summary["labels_a_row"].items()
        )
    labels.add_section()
    labels.add_row("all", *(f"{rows:,}" for rows in summary["rows"].values()))
    yield labels


def _treatment(summary: Mapping[str, Any]) -> Table:
    table = Table("rows", "what", "done", "for example")
    table.columns[0].justify = "right"
    for rule, found in summary["cleaned"].items():
        how = "mended" if found["effect"] == "fixed" else f"as they are; data.clean.{rule}: fix mends them"
        table.add_row(f"{found['rows']:,}", RULES[rule], how, escape(found["samples"][0]))
    for reason, dropped in summary["dropped"].items():
        table.add_row(f"{dropped['rows']:,}", escape(reason), "left out", escape(dropped["samples"][0]))
    return table


def _split(split: Mapping[str, Any]) -> str:
    share = f"{split['test']:.0%} " if isinstance(split["test"], float) else ""
    new = "of new rows " if split["continued"] else ""
    return share + new + SPLITS[split["kind"]].format_map({**split, "groups": split["groups"] or 0})
