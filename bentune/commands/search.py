"""Command `search`: search for the best values of a recipe."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from bentune.console import ConsoleReporter
from bentune.options import json_option, overrides_option, recipe_argument, run_options
from bentune.outcome import say_outcome

if TYPE_CHECKING:
    from training.search.result import SearchResult


@click.command()
@recipe_argument
@overrides_option
@run_options
@json_option
def search(recipe: Path, overrides: tuple[str, ...], runs: Path, new: bool, as_json: bool) -> None:
    """Search for the best values of a recipe.

    The `search.values` of the recipe are tried on validation rows. Test rows are never used. The best values are
    written to a recipe for `bentune run`. After an interruption the same command resumes.
    """
    from training.pipeline.pipeline import run_stage
    from training.pipeline.run_dir import RunDir, explain_full_disk
    from training.recipe.file import load_recipe

    report, loaded = ConsoleReporter(as_json=as_json), load_recipe(recipe, overrides).recipe
    with RunDir.open(runs, loaded.name, new=new) as run, explain_full_disk(run.root):
        report.say(f"[bold]{loaded.name}[/]  {escape(str(run.root))}")
        say_outcome(report, run_stage("data", loaded, run, report))
        with report.task("loading the libraries of `search`", None):
            from training.search.result import DIRECTORY
            from training.search.search import BEST
            from training.search.search import search as find
        result = find(loaded, run, report)
        place = run.root / DIRECTORY
    report.say(_table(result))
    report.say(f"run the best: bentune run {escape(str(place / BEST))}")
    report.result(result.model_dump(mode="json") | {"directory": place, "recipe": place / BEST})


def _table(result: "SearchResult") -> Table:
    rows = result.rows
    title = (
        f"trained on {rows['train']} rows, measured on {rows['validation']} validation rows; test rows were not used"
    )
    table = Table("trial", result.metric, *result.best.values, "seconds", "", title=title)
    order = sorted(result.trials, key=lambda one: (one.value is None, _rank(one.value, result.direction), one.number))
    for tried in order:
        notes = {result.best.number: "best", result.own: "the recipe's own"}
        again = f"as trial {tried.repeats + 1}" if tried.repeats is not None else ""
        found = tried.state if tried.value is None else f"{tried.value:.4f}"
        table.add_row(
            str(tried.number + 1),
            found,
            *(escape(_shown(value)) for value in tried.values.values()),
            f"{tried.seconds:.1f}",
            notes.get(tried.number, again),
            style="bold" if tried.number == result.best.number else None,
        )
    return table


def _rank(value: float | None, direction: str) -> float:
    return 0.0 if value is None else value * (-1 if direction == "maximize" else 1)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
