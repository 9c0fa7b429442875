"""The command `compare`: judges a candidate against what is served, on rows that neither has seen."""

from pathlib import Path

import click
from rich.markup import escape

from bentune.console import Report
from bentune.options import json_option
from bentune.outcome import exit_code_of


@click.command()
@click.argument("candidate")
@click.argument("served")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Labelled rows: CSV, TSV or JSONL.")
@click.option("--label-column", default="label", show_default=True, help="Column with the label.")
@click.option("--slice", "slices", multiple=True, metavar="COLUMN", help="Also compare by the values of a column.")
@click.option("--margin", type=float, help="Points of accuracy to lose; by default the recipe's.")
@click.option("--leave-out-trained", is_flag=True, help="Leave out rows that a side was trained on.")
@click.option("--trust-rows", is_flag=True, help="Vouch for the rows where a service's bundle is not here.")
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
    """Judge CANDIDATE against SERVED: each a bundle's tag or directory, or the address of a service.

    The same rows go through both. Exit code 0 for PROMOTE, 1 for HOLD and NEED MORE ROWS.
    """
    from rollout.compare.compare import compare as compare_sides
    from rollout.compare.tables import tables

    report = Report(as_json=as_json)
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
        else "[yellow]![/] the candidate is a service, so the verdict is written nowhere but here and in --out"
    )
    if out is not None:
        report.say(f"[green]✓[/] {escape(str(out / 'comparison.json'))}, {escape(str(out / 'comparison.html'))}")
    report.result(found.model_dump(mode="json"))
    return exit_code_of(found.verdict, as_json=as_json)
