"""Options that several commands share."""

from pathlib import Path
from typing import Any

import click

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the recipe, for example train.epochs=1.",
)
runs_option = click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Directory of the runs."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, for scripts.")


def run_options(command: Any) -> Any:
    """Add the options of the runs' directory and of starting a new run."""
    command = click.option("--new", is_flag=True, help="Start a new run instead of continuing the newest.")(command)
    return runs_option(command)


def require_place(out: Path) -> None:
    """Raise InputError before any work if results cannot be drawn or written to `out`."""
    from rollout.load.chart import require_directory, require_matplotlib

    require_matplotlib()
    require_directory(out)
