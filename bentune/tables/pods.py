"""Shows what new pods do: a table that changes where somebody watches, a line for each change elsewhere."""

from types import TracebackType
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bentune.console import Report
from rollout.release.watch import Pod, Watch

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


class Pods:
    """A listener of `rollout.release.release`; a context, for its table must end."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._before: dict[str, Pod] = {}
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
        """A line for people, above the table."""
        self._report.say(renderable)

    def diff(self, text: str) -> None:
        """A unified diff, coloured."""
        for line in text.splitlines() or ["nothing changes"]:
            colour = COLOURS.get(line[:1])
            self._report.say(f"[{colour}]{escape(line)}[/]" if colour else escape(line))

    def pods(self, watch: Watch) -> None:
        """What the new pods do now."""
        if self._live:
            self._live.update(_table(watch), refresh=True)
        for pod in watch.pods:
            if self._live is None and self._before.get(pod.name) != pod:
                self._report.say(f"  {_mark(pod)} {escape(pod.name)}  {_words(pod)}")
        self._before = {pod.name: pod for pod in watch.pods}


def _table(watch: Watch) -> Table:
    table = Table(show_header=False, box=None)
    for pod in watch.pods:
        table.add_row(_mark(pod), pod.name, _words(pod))
    return table


def _mark(pod: Pod) -> str:
    return "[red]✗[/]" if pod.trouble else "[green]✓[/]" if pod.ready else "…"


def _words(pod: Pod) -> str:
    return escape(pod.trouble or pod.state)
