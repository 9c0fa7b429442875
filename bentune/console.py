"""Progress for people on stderr, and one JSON object for machines on stdout."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

PIPE_WIDTH = 120


class Report:
    """Where a command speaks. With `as_json`, people's lines are left out and `result` prints the object."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        width = None if sys.stderr.isatty() else PIPE_WIDTH
        self.console = Console(stderr=True, quiet=as_json, highlight=False, width=width)

    @contextlib.contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A progress bar to tell how many more steps are done; without a total a spinner."""
        with self._bar(description, total) as (progress, bar):
            yield lambda steps: progress.update(bar, advance=steps)

    @contextlib.contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar to tell how many steps are done in all."""
        with self._bar(description, total) as (progress, bar):
            yield lambda steps: progress.update(bar, completed=steps)

    @contextlib.contextmanager
    def _bar(self, description: str, total: int | None) -> Iterator[tuple[Progress, TaskID]]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        # A spinner is only for whoever watches: it leaves nothing behind.
        unseen = total is None and not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=total is None, disable=unseen) as progress:
            yield progress, progress.add_task(description, total=total)

    def say(self, renderable: Any) -> None:
        """A line or a table for people."""
        self.console.print(renderable)

    @staticmethod
    def page(renderable: Any) -> None:
        """A table that is the command's answer, on stdout, as wide as it needs where nobody watches."""
        Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(renderable)

    def result(self, value: Any) -> None:
        """What the command found, for machines."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False, default=str))
