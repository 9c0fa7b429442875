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


class ConsoleReporter:
    """Output of a command: lines for people on stderr, or with `as_json` one object on stdout."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        width = None if sys.stderr.isatty() else PIPE_WIDTH
        self.console = Console(stderr=True, quiet=as_json, highlight=False, width=width)

    @contextlib.contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a progress bar, or a spinner without a total.

        The yielded function adds steps.
        """
        with self._bar(description, total) as (progress, bar):
            yield lambda steps: progress.update(bar, advance=steps)

    @contextlib.contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar; the yielded function sets the number of steps done."""
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
        # A spinner is for a terminal only: it prints no result.
        unseen = total is None and not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=total is None, disable=unseen) as progress:
            yield progress, progress.add_task(description, total=total)

    def say(self, renderable: Any) -> None:
        """Print a line or a table for people, on stderr."""
        self.console.print(renderable)

    @staticmethod
    def page(renderable: Any) -> None:
        """Print a table that is the command's result, on stdout.

        Without a terminal it is PIPE_WIDTH columns wide.
        """
        Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(renderable)

    def result(self, value: Any) -> None:
        """Print the command's result as JSON on stdout, with `as_json`."""
        if self.as_json:
            click.echo(json.dumps(value, ensure_ascii=False, default=str))
