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


def form_options(command: Any) -> Any:
    """Add the options of the form of a text file; `form_of` reads them."""
    for option in (
        click.option("--header", help="Names of the columns, separated by commas, for a file without a header."),
        click.option("--quoting", type=click.Choice(["minimal", "none"]), help="none: quotes belong to the texts."),
        click.option("--delimiter", help="Character between the fields.  [default: that of the suffix]"),
        click.option("--encoding", help="Encoding of a text file, for example cp1252.  [default: UTF-8]"),
    ):
        command = option(command)
    return command


def form_of(options: dict[str, Any]) -> Any:
    """Return the form of the file that the options describe.

    Raises InputError for an unknown encoding and a delimiter of several characters.
    """
    from pydantic import ValidationError

    from bentune.bundle.errors import InputError
    from bentune.bundle.rows.form import FileForm

    header = options["header"]
    try:
        return FileForm.model_validate({**options, "header": header.split(",") if header else None})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from None


def require_place(out: Path) -> None:
    """Raise InputError before any work if results cannot be drawn or written to `out`."""
    from rollout.load.chart import require_directory, require_matplotlib

    require_matplotlib()
    require_directory(out)
