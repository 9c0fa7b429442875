"""Outcome of a stage as commands print it: lines for people, an object for scripts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from bentune.bundle.errors import GateError
from bentune.console import ConsoleReporter
from bentune.tables.data import lines as data_lines

if TYPE_CHECKING:
    from bentune.bundle.verdict import Verdict


def exit_code_of(verdict: "Verdict", *, as_json: bool) -> int:
    """Return the exit code of a verdict: 0 for PROMOTE, else 1.

    Without `as_json` raises GateError with the reason instead of returning 1; the JSON object has it already.
    """
    if verdict.decision == "PROMOTE":
        return 0
    if as_json:
        return 1
    needed = f", {verdict.rows_needed:,} rows in all" if verdict.rows_needed else ""
    raise GateError(
        "compare", f"{verdict.decision}{needed}: {verdict.candidate.tag} does not replace {verdict.served.tag}"
    )


def say_outcome(report: ConsoleReporter, outcome: Any) -> None:
    """Print the outcome of a stage for people."""
    done = f"{outcome.seconds:.1f} s" if outcome.redone else "nothing changed"
    report.say(f"[green]✓[/] [bold]{outcome.stage}[/]  {done}  {outcome.directory}")
    if outcome.stage == "data":
        for line in data_lines(outcome.summary):
            report.say(line)
        if (parent := outcome.summary.get("parent")) is not None:
            report.say(
                f"  continues {parent['tag']}: held out are {parent['reference']} reference and {parent['fresh']} "
                f"fresh rows, trained on {parent['trained_again']} rows again and {parent['trained_new']} new ones"
            )
            held_out = outcome.summary["rows"]["test"]
            if parent["compared"] < held_out:
                report.say(f"  {held_out} rows are held out, and compared on {parent['compared']} of them")
            if parent["relabelled"]:
                report.say(
                    f"  [yellow]![/] {parent['relabelled']} rows that the parent held out have another label now, and "
                    "are no reference"
                )
            if parent["missing"]:
                report.say(
                    f"  [yellow]![/] {parent['missing']} rows that the parent held out are not in the data any more"
                )
        _say_doubtful(report, outcome.summary["doubtful_labels"], outcome.directory)


def _say_doubtful(report: ConsoleReporter, doubtful: dict[str, Any], directory: Path) -> None:
    if not doubtful["first"]:
        if doubtful["accuracy"] is not None and doubtful["not_judged"]:
            report.say(f"  labels were not judged: {doubtful['not_judged']}")
        return
    counts = ", ".join(f"{rows} {split}" for split, rows in doubtful["found"].items())
    judged = "" if doubtful["judged"] == doubtful["rows"] else f" of {doubtful['judged']} rows that were judged"
    report.say(
        f"  [yellow]![/] rows whose label is probably wrong: {counts}{judged}; see {directory / 'doubtful.jsonl'}"
    )
    for row in doubtful["first"]:
        report.say(escape(f"    {row['origin']}: {row['label']}, looks like {row['suggested']}"))


def outcome_json(outcome: Any) -> dict[str, Any]:
    """Return the outcome of a stage as JSON."""
    return {
        "stage": outcome.stage,
        "directory": str(outcome.directory),
        "redone": outcome.redone,
        "seconds": round(outcome.seconds, 3),
        "summary": outcome.summary,
    }
