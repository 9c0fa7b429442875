"""Commands `recipe`: the values of a recipe."""

import json
from pathlib import Path

import click
from rich.table import Table

from bentune.console import ConsoleReporter
from bentune.options import json_option, overrides_option, recipe_argument


@click.group()
def recipe() -> None:
    """Inspect recipes."""


@recipe.command()
@recipe_argument
@overrides_option
@json_option
def explain(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print every value of a recipe and its origin."""
    from training.recipe.file import explain as explain_recipe
    from training.recipe.file import load_recipe

    report, rows = ConsoleReporter(as_json=as_json), explain_recipe(load_recipe(recipe, overrides))
    table = Table("key", "value", "from", "meaning")
    for row in rows:
        table.add_row(row.key, json.dumps(row.value, ensure_ascii=False), row.origin, row.meaning)
    if not as_json:
        ConsoleReporter.page(table)
    report.result([row._asdict() for row in rows])
