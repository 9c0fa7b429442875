"""Display of new pods: a live table on a terminal, a line for each change elsewhere."""

from types import TracebackType
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bentune.console import ConsoleReporter
from rollout.release.progress import PodStatus, RolloutProgress

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class Pods:
    """Listener of a release; a context manager, because its live table must be stopped."""

    def __init__(self, report: ConsoleReporter) -> None:
        self._report = report
        self._before: dict[str, PodStatus] = {}
        self._live = Live(console=report.console, auto_refresh=False) if report.console.is_terminal else None

    def __enter__(self) -> "Pods":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, renderable: Any) -> None:
        """Print a line above the table."""
        self._report.say(renderable)

    def diff(self, text: str) -> None:
        """Print a unified diff in colours."""
        for line in text.splitlines() or ["nothing changes"]:
            colour = COLOURS.get(line[:1])
            self._report.say(f"[{colour}]{escape(line)}[/]" if colour else escape(line))

    def pods(self, progress: RolloutProgress) -> None:
        """Show the status of the new pods."""
        if self._live:
            self._live.update(_table(progress), refresh=True)
        for pod in progress.pods:
            if self._live is None and self._before.get(pod.name) != pod:
                self._report.say(f"  {_mark(pod)} {escape(pod.name)}  {_words(pod)}")
        self._before = {pod.name: pod for pod in progress.pods}


def _table(progress: RolloutProgress) -> Table:
    table = Table(show_header=False, box=None)
    for pod in progress.pods:
        table.add_row(_mark(pod), pod.name, _words(pod))
    return table


def _mark(pod: PodStatus) -> str:
    return "[red]✗[/]" if pod.trouble else "[green]✓[/]" if pod.ready else "…"


def _words(pod: PodStatus) -> str:
    return escape(pod.trouble or pod.state)
