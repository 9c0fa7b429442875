"""Command `replay`: disagreement of a candidate with logged predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from bentune.console import ConsoleReporter
from bentune.options import json_option

if TYPE_CHECKING:
    from rollout.replay import ChangedAnswer, Disagreement

SHOWN_CHARACTERS = 60


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--against", "tag", required=True, help="Candidate: NAME, NAME:VERSION, or a bundle's directory.")
@click.option(
    "--max-disagreement", type=click.FloatRange(0, 1), help="Exit with code 1 if a larger share of the labels changes."
)
@click.option(
    "--rows", default=10_000, show_default=True, type=click.IntRange(min=1), help="Most predictions to score."
)
@click.option("--texts", is_flag=True, help="With --json, include the texts of the most confident changes.")
@json_option
def replay(log: Path, tag: str, max_disagreement: float | None, rows: int, texts: bool, as_json: bool) -> None:
    """Score logged requests with a candidate.

    The changed answers are shown before any pod runs the candidate. LOG is the directory of BENTUNE_PREDICTION_LOG, or
    one of its files. It must have the texts (BENTUNE_PREDICTION_LOG_TEXT=true).
    """
    from bentune.bundle.errors import GateError
    from bentune.bundle.store import find_bundle
    from rollout.compare.models import BundleScorer
    from rollout.replay import disagreement, read_log, require_same_labels, summary

    report, bundle = ConsoleReporter(as_json=as_json), find_bundle(tag)
    found = read_log(log, pairs=bundle.manifest.columns.text_pair is not None, most=rows)
    require_same_labels(found.rows, bundle.manifest.target)
    with report.progress("replaying", len(found.rows)) as finished:
        result = disagreement(BundleScorer(bundle), found.rows, finished, bundle.manifest.target)
    low, high = result.rate.interval
    said = (
        f"{result.rate.flips} of {result.rate.rows} answers change with {bundle.tag}: "
        f"{result.rate.value:.2%} [{low:.2%}, {high:.2%}]"
    )
    if not as_json:
        ConsoleReporter.page(_by_label(result))
        if result.flips:
            ConsoleReporter.page(_flips(result.flips))
        ConsoleReporter.page(
            f"probability of the logged label: moved by {sum(result.moved) / len(result.moved):.4f} on average, "
            f"95 % of the rows by less than {result.moved_at(0.95):.4f}, one by {result.moved[-1]:.4f}"
        )
        models = ", ".join(f"{model} ({count})" for model, count in found.models.most_common())
        ConsoleReporter.page(_plain(f"answered by {models}", 10 * SHOWN_CHARACTERS))
        ConsoleReporter.page(
            f"left out: {found.redacted} without texts, {found.damaged} damaged, {found.other_inputs} of other inputs, "
            f"{found.usable - len(found.rows)} beyond --rows"
        )
        ConsoleReporter.page(said)
    report.result(summary(result, found, bundle.tag, texts=texts))
    if max_disagreement is not None and result.rate.value > max_disagreement:
        raise GateError("replay", f"replay: {said}; --max-disagreement allows {max_disagreement:.2%}")


def _by_label(found: "Disagreement") -> Table:
    table = Table("logged label", "rows", "changed", "95 % interval", "to", title="answers that change")
    for label, rate in found.by_label.items():
        low, high = rate.interval
        others = ", ".join(f"{other} {count}" for (one, other), count in found.to.most_common() if one == label)
        changed = f"{rate.flips} ({rate.value:.2%})"
        table.add_row(_plain(label), str(rate.rows), changed, f"{low:.2%} to {high:.2%}", _plain(others))
    return table


def _flips(flips: list["ChangedAnswer"]) -> Table:
    table = Table("text", "logged", "candidate", title="most confident changes")
    for flip in flips:
        text = " | ".join(filter(None, (flip.logged.text, flip.logged.text_pair)))
        logged = f"{flip.before} {flip.was_sure:.3f}"
        table.add_row(_plain(text), _plain(logged), _plain(f"{flip.label} {flip.confidence:.3f}"))
    return table


def _plain(text: str, most: int = SHOWN_CHARACTERS) -> Text:
    """Return the start of an untrusted text, without markup and control characters."""
    shown = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    return Text(shown[:most])
