"""Command `report`: page of a run, and the model card."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from bentune.console import ConsoleReporter
from bentune.options import json_option, overrides_option, recipe_argument, runs_option

if TYPE_CHECKING:
    from training.report.facts import Judgement
    from training.report.report import Written

COMPARED = "compare"
"""Name of the comparison's directory in a run of `retrain`."""


@click.command(name="report")
@recipe_argument
@click.option("--from", "served", metavar="SERVED", help="Report on the run of `retrain --from SERVED`.")
@click.option("--warm-start", is_flag=True, help="Report on the run of `retrain --warm-start`.")
@overrides_option
@runs_option
@json_option
def report_command(
    recipe: Path, served: str | None, warm_start: bool, overrides: tuple[str, ...], runs: Path, as_json: bool
) -> None:
    """Write report.html and the model card of the newest run.

    Stages that have not run are missing in it. The recipe.yaml beside the page is that of the run, also after
    `retrain`.
    """
    from rollout.server.live import find_served
    from training.pipeline.pipeline import identity
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe
    from training.report.report import write_report

    continued = (f"parent={find_served(served).tag}",) if served else ()
    warm = ("train.warm_start=true",) if warm_start else ()
    report, given = ConsoleReporter(as_json=as_json), load_recipe(recipe, (*overrides, *warm, *continued)).recipe
    purpose = identity(given) if given.parent is not None else ""
    if not RunDir.existing(runs, given.name, purpose):
        purpose = ""  # made by `run`, from a recipe with a parent
    with RunDir.open(runs, given.name, purpose=purpose) as directory:
        written = write_report(given, directory, judgement_of(directory.root))
    say_report(report, written)
    report.result({"page": written.page, "card": written.card, "recipe": written.recipe, "missing": written.missing})


def judgement_of(root: Path) -> "Judgement | None":
    """Read the comparison of `retrain` from the run directory `root`.

    The result is None without one. Raises InputError for an invalid file.
    """
    file = root / COMPARED / "comparison.json"
    if not file.is_file():
        return None
    from pydantic import ValidationError

    from bentune.bundle.errors import InputError
    from rollout.compare.decision import Comparison
    from rollout.compare.tables import notes, numbers, slice_numbers
    from training.report.facts import Judgement

    try:
        found = Comparison.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InputError(f"{file}: {error.errors()[0]['msg']}; run `bentune retrain` again") from None
    return Judgement(
        verdict=found.verdict, notes=notes(found), numbers=numbers(found), slices=list(map(slice_numbers, found.slices))
    )


def say_report(report: ConsoleReporter, written: "Written") -> None:
    """Print the paths of the report and the card, and the stages that are missing."""
    report.say(f"report: {escape(str(written.page))}  model card: {escape(str(written.card))}")
    if written.missing:
        report.say(f"  [yellow]![/] missing in it: {', '.join(written.missing)}; `bentune run` runs these stages")
