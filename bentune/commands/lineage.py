"""Command `lineage`: tree of the versions of a name."""

from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.tree import Tree

from bentune.console import ConsoleReporter
from bentune.options import json_option

if TYPE_CHECKING:
    from bentune.bundle.verdict import Verdict
    from rollout.lineage import Version

SHOWN = 5


@click.command()
@click.argument("name")
@click.option(
    "--at", "addresses", multiple=True, metavar="URL", help="Address of a service whose version is marked; repeatable."
)
@json_option
def lineage(name: str, addresses: tuple[str, ...], as_json: bool) -> None:
    """Show the versions of a name as a tree.

    Each version is shown with its data, recipe, verdicts and services.
    """
    from rollout.lineage import lineage as read_lineage

    report = ConsoleReporter(as_json=as_json)
    with report.task("reading bundles", None) as advance:
        found = read_lineage(name, addresses, advance)
    if not as_json:
        ConsoleReporter.page(draw(name, found.versions))
    for problem in found.problems:
        report.say(f"[yellow]![/] {escape(problem)}")
    report.result(found.model_dump(mode="json"))


def draw(name: str, versions: list["Version"]) -> Tree:
    """Draw the tree of versions.

    A version continues the one above it; versions without a continuation branch off to the right. With a branch for
    each child, a year of weekly versions would become a staircase.
    """
    tree = Tree(f"[bold]{escape(name)}[/]  a version continues the one above it; branches were not continued")
    known = {version.tag for version in versions}
    children: dict[str | None, list[Version]] = {}
    for version in versions:
        above = version.parent.tag if version.parent is not None and version.parent.tag in known else None
        children.setdefault(above, []).append(version)
    for root in children.get(None, []):
        _trunk(tree, root, children)
    return tree


def _trunk(tree: Tree, version: "Version", children: dict["str | None", list["Version"]]) -> None:
    current: Version | None = version
    while current is not None:
        node = tree.add(_text(current))
        below = sorted(children.get(current.tag, []), key=lambda child: (_weight(child, children), child.tag))
        for branch in below[:-1]:
            _trunk(node, branch, children)
        current = below[-1] if below else None


def _weight(version: "Version", children: dict["str | None", list["Version"]]) -> tuple[bool, bool, bool]:
    """Rank a child as the continuation.

    A child with children ranks highest, then a served one, then a promoted one.
    """
    promoted = version.verdict is not None and version.verdict.decision == "PROMOTE"
    return version.tag in children, bool(version.served), promoted


def _text(version: "Version") -> str:
    if version.missing:
        return f"{escape(version.tag)}  [red]missing[/] from the store"
    if version.damaged is not None:
        return f"{escape(version.tag)}  [red]damaged[/]: {escape(version.damaged)}"
    served = "".join(f"  [bold green]served at {escape(where)}[/]" for where in version.served)
    return "\n".join(
        [
            f"[bold]{escape(version.tag)}[/]{served}",
            _data(version),
            _recipe(version),
            _model(version),
            *_verdicts(version),
        ]
    )


def _data(version: "Version") -> str:
    more = f" ({version.more:+d})" if version.more is not None else ""
    parts = ", ".join(f"{count} {part}" for part, count in version.rows.items())
    return f"data    {(version.data_fingerprint or '')[:12]}  {sum(version.rows.values())} rows{more}: {escape(parts)}"


def _recipe(version: "Version") -> str:
    digest = (version.recipe_digest or "")[:12]
    if version.changed is None:
        return f"recipe  {digest}"
    if not version.changed:
        return f"recipe  {digest}  as its parent's"
    shown = [f"{change.key}: {change.before} -> {change.now}" for change in version.changed[:SHOWN]]
    more = f" and {len(version.changed) - SHOWN} more" if len(version.changed) > SHOWN else ""
    return f"recipe  {digest}  changed: {escape('; '.join(shown))}{more}"


def _model(version: "Version") -> str:
    accuracy = "" if version.accuracy is None else f"accuracy {version.accuracy:.3f} on its test rows, "
    return f"model   {accuracy}from {escape(version.base or 'nowhere')}"


def _verdicts(version: "Version") -> list[str]:
    """List the verdicts, newest first; only the newest counts."""
    if not version.verdicts:
        return ["verdict none"]
    newest, *earlier = map(_verdict, reversed(version.verdicts))
    mark = " (newest)" if earlier else ""
    return [f"verdict {newest}{mark}", *(f"  before it {one}" for one in earlier)]


def _verdict(verdict: "Verdict") -> str:
    colour = "green" if verdict.decision == "PROMOTE" else "yellow"
    value = verdict.difference
    return (
        f"[{colour}]{verdict.decision}[/] against {escape(verdict.served.tag)}: {escape(verdict.metric)} "
        f"{100 * value.value:+.2f} points \\[{100 * value.low:+.2f}, {100 * value.high:+.2f}] on {verdict.rows} rows"
    )
