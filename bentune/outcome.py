"""Outcome of a stage as text for people and as JSON for scripts."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from bentune.bundle.errors import GateError, InputError
from bentune.console import ConsoleReporter
from bentune.tables.data import lines as data_lines

if TYPE_CHECKING:
    from bentune.bundle.verdict import Verdict
    from training.pipeline.pipeline import Outcome
    from training.pipeline.results import DoubtfulLabels, ParentRows


def exit_code_of(verdict: "Verdict", *, as_json: bool) -> int:
    """Return 0 for PROMOTE, else 1.

    Without `as_json`, raises GateError with the reason instead of returning 1. The JSON object has the reason already.
    """
    if verdict.decision == "PROMOTE":
        return 0
    if as_json:
        return 1
    needed = f", {verdict.rows_needed:,} rows in all" if verdict.rows_needed else ""
    raise GateError(
        "compare", f"{verdict.decision}{needed}: {verdict.candidate.tag} does not replace {verdict.served.tag}"
    )


def say_outcome(report: ConsoleReporter, outcome: "Outcome") -> None:
    """Print a stage's outcome for people."""
    from training.data.cautions import cautions_of
    from training.pipeline.results import DataResult

    done = f"{outcome.seconds:.1f} s" if outcome.redone else "nothing changed"
    report.say(f"[green]✓[/] [bold]{outcome.stage}[/]  {done}  {outcome.directory}")
    result = outcome.result
    if isinstance(result, DataResult):
        for line in data_lines(result):
            report.say(line)
        if result.parent is not None:
            _say_continued(report, result.parent, result.rows["test"])
        _say_doubtful(report, result.doubtful_labels, outcome.directory)
        for name, joined in result.joined.items():
            report.say(escape(f"  label {name!r} joined with {joined!r}"))
        if (tokens := result.tokens) is not None:
            report.say(
                f"  {tokens.tokens / tokens.rows:,.0f} tokens a text (of {tokens.rows:,} training rows), "
                f"{tokens.unknown_share:.1%} unknown to the tokenizer; {tokens.truncated_share:.1%} of the texts are "
                "longer than max_tokens"
            )
        for caution in (*cautions_of(result, outcome.recipe), *_in_vain(outcome)):
            report.say(f"  [yellow]![/] {escape(caution)}")


def _say_continued(report: ConsoleReporter, parent: "ParentRows", held_out: int) -> None:
    report.say(
        f"  continues {parent.tag}: held out are {parent.reference} reference and {parent.fresh} fresh rows, "
        f"trained on {parent.trained_again} rows again and {parent.trained_new} new ones"
    )
    if parent.compared < held_out:
        report.say(f"  {held_out} rows are held out; the comparison uses {parent.compared} of them")
    if parent.relabelled:
        report.say(
            f"  [yellow]![/] {parent.relabelled} rows that the parent held out have another label now and are no "
            "reference"
        )
    if parent.missing:
        report.say(f"  [yellow]![/] {parent.missing} rows that the parent held out are no longer in the data")


def _say_doubtful(report: ConsoleReporter, doubtful: "DoubtfulLabels", directory: Path) -> None:
    from training.pipeline.layout import DataFiles

    if not doubtful.first:
        if doubtful.accuracy is not None and doubtful.not_judged:
            report.say(f"  labels were not judged: {doubtful.not_judged}")
        return
    counts = ", ".join(f"{rows} {split}" for split, rows in doubtful.found.items())
    judged = "" if doubtful.judged == doubtful.rows else f" of {doubtful.judged} rows that were judged"
    file = DataFiles(directory).doubtful
    report.say(f"  [yellow]![/] rows whose label is probably wrong: {counts}{judged}; see {file}")
    for row in doubtful.first:
        report.say(escape(f"    {row.origin}: {row.label}, looks like {row.suggested}"))


def _in_vain(outcome: "Outcome") -> Iterator[str]:
    """Yield why a training on these rows is bound to be refused."""
    from training.data.before_training import require_measurable
    from training.pipeline.layout import DataFiles

    try:
        require_measurable(outcome.recipe, DataFiles(outcome.directory))
    except InputError as error:
        yield str(error)


def outcome_json(outcome: "Outcome") -> dict[str, Any]:
    """Return a stage's outcome as JSON."""
    from training.data.cautions import cautions_of
    from training.pipeline.results import DataResult

    found = {
        "stage": outcome.stage,
        "directory": str(outcome.directory),
        "redone": outcome.redone,
        "seconds": round(outcome.seconds, 3),
        "summary": outcome.result.written(),
    }
    if isinstance(outcome.result, DataResult):
        found["cautions"] = [*cautions_of(outcome.result, outcome.recipe), *_in_vain(outcome)]
    return found
