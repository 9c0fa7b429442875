"""Base of the benchmark commands: one-line errors, a table on stdout, a JSON file."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from bentune.bundle.errors import BentuneError
from bentune.bundle.files import write_json

WIDTH = 120
json_option = click.option("--json", "json_path", type=click.Path(path_type=Path), help="File for the result.")


class Command(click.Command):
    """Command that prints expected errors as one line on stderr and exits with the codes of `bentune`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BentuneError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)


def show(result: BaseModel, table: Table, json_path: Path | None) -> None:
    """Print the table and write the result to its file, if one is given."""
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)
    if json_path is not None:
        write_json(json_path, result)


def say(line: str) -> None:
    """Print a line of progress on stderr."""
    click.echo(line, err=True)


Say = Callable[[str], None]
