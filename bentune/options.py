"""Options that several commands share."""

from pathlib import Path
from typing import Any

import click

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value, for example train.epochs=1."
)
runs_option = click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Directory of the runs."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, for machines.")


def run_options(command: Any) -> Any:
    """Where runs are kept, and whether to start a new one."""
    command = click.option("--new", is_flag=True, help="Start a new run rather than go on with the newest.")(command)
    return runs_option(command)


def require_place(out: Path) -> None:
    """Before anything is computed: raise InputError for what could not be written or drawn at the end."""
    from rollout.load.chart import require_matplotlib
    from rollout.load.out import require_directory

    require_matplotlib()
    require_directory(out)
