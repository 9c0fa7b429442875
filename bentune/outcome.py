"""How commands tell what became of a stage: a line or two for people, an object for machines."""

from typing import Any

from bentune.report import Report


def say_outcome(report: Report, outcome: Any) -> None:
    """Tell people what became of a stage."""
    done = f"{outcome.seconds:.1f} s" if outcome.redone else "nothing changed"
    report.say(f"[green]✓[/] [bold]{outcome.stage}[/]  {done}  {outcome.directory}")
    if outcome.stage == "data":
        rows = ", ".join(f"{count} {split}" for split, count in outcome.summary["rows"].items())
        report.say(f"  rows: {rows}; labels: {', '.join(outcome.summary['labels'])}")
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
        for reason, dropped in outcome.summary["dropped"].items():
            report.say(f"  left out: {dropped['rows']} {reason}, for example {dropped['samples'][0]}")


def outcome_json(outcome: Any) -> dict[str, Any]:
    """The same for machines."""
    return {
        "stage": outcome.stage,
        "directory": str(outcome.directory),
        "redone": outcome.redone,
        "seconds": round(outcome.seconds, 3),
        "summary": outcome.summary,
    }
