"""Command `compare`: verdict on a candidate against the served model."""

from pathlib import Path

import click
from rich.markup import escape

from bentune.console import ConsoleReporter
from bentune.options import json_option
from bentune.outcome import exit_code_of


@click.command()
@click.argument("candidate")
@click.argument("served")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Labelled rows: CSV, TSV or JSONL.")
@click.option("--label-column", default="label", show_default=True, help="Column of the label.")
@click.option(
    "--slice", "slices", multiple=True, metavar="COLUMN", help="Also compare within each value of this column."
)
@click.option("--margin", type=float, help="Allowed loss of accuracy, in points.  [default: the recipe's]")
@click.option("--leave-out-trained", is_flag=True, help="Drop rows that a model was trained on.")
@click.option("--trust-rows", is_flag=True, help="Skip the check of rows if a service's bundle is not in the store.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Directory for the JSON and the page.")
@json_option
def compare(
    candidate: str,
    served: str,
    data: Path,
    label_column: str,
    slices: tuple[str, ...],
    margin: float | None,
    leave_out_trained: bool,
    trust_rows: bool,
    out: Path | None,
    as_json: bool,
) -> int:
    """Compare a candidate with the served model.

    The same labelled rows go through both, and the verdict decides which to serve. CANDIDATE and SERVED are each a
    bundle's tag or directory, or the address of a service. The rows must be new to both models.

    Exit code 0 for PROMOTE, 1 for HOLD and NEED MORE ROWS.
    """
    from rollout.compare.compare import compare as compare_sides
    from rollout.compare.tables import tables

    report = ConsoleReporter(as_json=as_json)
    found = compare_sides(
        candidate,
        served,
        data,
        report=report,
        slices=slices,
        margin=margin,
        out=out,
        label_column=label_column,
        leave_out_trained=leave_out_trained,
        trust_rows=trust_rows,
    )
    for part in tables(found):
        report.say(part)
    written = found.verdict.candidate.address is None
    report.say(
        "[green]✓[/] the verdict is in the candidate's evidence.json"
        if written
        else "[yellow]![/] the candidate is a service, so only this output and --out have the verdict"
    )
    if out is not None:
        report.say(f"[green]✓[/] {escape(str(out / 'comparison.json'))}, {escape(str(out / 'comparison.html'))}")
    report.result(found.model_dump(mode="json"))
    return exit_code_of(found.verdict, as_json=as_json)
