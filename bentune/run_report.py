"""The command `report`: a run's page for people, and the model card."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from bentune.options import json_option, overrides_option, recipe_argument, runs_option
from bentune.report import Report

if TYPE_CHECKING:
    from training.report import Written


@click.command(name="report")
@recipe_argument
@overrides_option
@runs_option
@json_option
def report_command(recipe: Path, overrides: tuple[str, ...], runs: Path, as_json: bool) -> None:
    """Write report.html and the model card from what the newest run's stages left; what is not done yet is left out."""
    from training.recipe_file import load_recipe
    from training.report import write_report
    from training.run_dir import RunDir

    report, loaded = Report(as_json=as_json), load_recipe(recipe, overrides)
    with RunDir.open(runs, loaded.recipe.name) as directory:
        written = write_report(loaded.recipe, directory)
    say_report(report, written)
    report.result({"page": written.page, "card": written.card, "recipe": written.recipe, "missing": written.missing})


def say_report(report: Report, written: "Written") -> None:
    """Tell people where the report is, and what is not in it."""
    report.say(f"report: {escape(str(written.page))}  model card: {escape(str(written.card))}")
    if written.missing:
        report.say(f"  [yellow]![/] not in it: {', '.join(written.missing)}; `bentune run` does what is missing")
