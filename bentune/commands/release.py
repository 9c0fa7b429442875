"""The commands `release` and `rollback`: a version to the cluster, watched, and back."""

from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from bentune.bundle.errors import InputError
from bentune.console import Report
from bentune.options import json_option

SHOWN = 12


def place_options(command: Any) -> Any:
    """Where it goes, how it is reached, and how far to go."""
    for option in (
        click.option("--overlay", type=click.Path(path_type=Path), help="Directory of the kustomize overlay to write."),
        click.option("--deployment", help="Without an overlay: the Deployment to patch. With one: which of several."),
        click.option("--context", help="Of kubectl; by default its own."),
        click.option("--namespace", "-n", help="By default the overlay's, or else kubectl's own."),
        click.option("--url", help="Where the Service is reached; by default through kubectl port-forward."),
        click.option(
            "--timeout",
            default=300,
            show_default=True,
            type=click.IntRange(min=1),
            help="Seconds to wait for the next pod to turn ready.",
        ),
        click.option("--dry-run", is_flag=True, help="Only print the diff."),
        click.option("--commit", is_flag=True, help="Only write the overlay, for GitOps to apply."),
        json_option,
    ):
        command = option(command)
    return command


@click.command()
@click.argument("tag")
@click.option("--image", help="That holds the bundle and can be pulled by the nodes; best with @sha256:...")
@click.option("--push", metavar="REPOSITORY", help="Build the image, push it there, and release that.")
@click.option("--insecure-push", is_flag=True, help="The registry of --push speaks HTTP.")
@click.option("--engine", help="docker, podman or buildah; by default the first that answers.")
@click.option("--base", default="python:3.11-slim", show_default=True, help="Image with Python 3.11 to build upon.")
@click.option("--force", is_flag=True, help="Release it whatever the verdict; needs --reason.")
@click.option("--reason", default="", help="Why it is forced; recorded.")
@place_options
def release(
    tag: str,
    image: str | None,
    push: str | None,
    insecure_push: bool,
    engine: str | None,
    base: str,
    force: bool,
    reason: str,
    **options: Any,
) -> int:
    """Bring a promoted version to the cluster, watch it, and undo it when it is no good.

    Exit code 1: the verdict forbids it, or the pods did not do and were taken back.
    """
    from bentune.bundle.store import find_bundle
    from rollout.image.push import push_image, push_model
    from rollout.release.release import allowed
    from rollout.release.release import release as run_release
    from rollout.release.watch_pods import Means

    report, bundle = Report(as_json=options["as_json"]), find_bundle(tag)

    if (image is None) == (push is None):
        raise InputError("say either --image REF, which holds the bundle already, or --push REPOSITORY, to build one")
    mode = _mode(options)
    place = _place(options)

    def made(repository: str) -> str:
        def said(line: str) -> None:
            report.say(f"[dim]{escape(line)}[/]")

        if mode == "dry-run":
            return f"{repository}:{bundle.manifest.version}"
        if place.container == "bundle":
            return push_model(bundle, repository, insecure=insecure_push, tell=said)
        return push_image(bundle.tag, repository, engine=engine, base=base, insecure=insecure_push, tell=said)

    listener = _pods(report)
    means = Means(listener, float(options["timeout"]), options["url"])
    # Before an image is built for nothing.
    allowed(place, bundle, means, force=force, reason=reason, mode=mode)
    image = image or made(push or "")
    if "@sha256:" not in image:
        report.say(f"[yellow]{escape(image)} has no digest: whoever moves the tag changes what new pods run[/]")
    with listener:
        outcome = run_release(place, bundle, image, means, force=force, reason=reason, mode=mode)
    return _end(report, outcome, mode, "released")


@click.command()
@place_options
def rollback(**options: Any) -> int:
    """Return to the last version that was released and served, and watch it.

    Exit code 1: the pods of that version did not do.
    """
    from rollout.release.release import rollback as run_rollback
    from rollout.release.watch_pods import Means

    report, mode = Report(as_json=options["as_json"]), _mode(options)
    place = _place(options)
    with _pods(report) as listener:
        outcome = run_rollback(place, Means(listener, float(options["timeout"]), options["url"]), mode=mode)
    return _end(report, outcome, mode, "rolled back")


def _mode(options: dict[str, Any]) -> str:
    if options["dry_run"] and options["commit"]:
        raise InputError("--dry-run changes nothing and --commit writes the overlay: leave one out")
    if options["commit"] and options["overlay"] is None:
        raise InputError("--commit writes an overlay: name it with --overlay")
    return "dry-run" if options["dry_run"] else "commit" if options["commit"] else "apply"


def _place(options: dict[str, Any]) -> Any:
    from rollout.release.kubectl import Kubectl
    from rollout.release.target import LivePlace, OverlayPlace

    kubectl = Kubectl(options["context"], options["namespace"])
    if options["overlay"] is not None:
        return OverlayPlace(options["overlay"], kubectl, options["deployment"])
    if options["deployment"] is None:
        raise InputError("say where: --overlay DIRECTORY, or --deployment NAME for one that runs")
    return LivePlace(options["deployment"], kubectl)


def _pods(report: Report) -> Any:
    from bentune.tables.pods import Pods

    return Pods(report)


def _end(report: Report, outcome: Any, mode: str, done: str) -> int:
    """A screen of summary, and the exit code."""
    pin, before = outcome.pin, outcome.before
    table = Table(show_header=False, title=_headline(outcome, mode, done))
    table.add_row("version", f"{pin.tag}  content {pin.content[:SHOWN]}")
    table.add_row("before", f"{before.tag}  content {before.content[:SHOWN]}" if before else "not by bentune release")
    table.add_row("verdict", escape(f"{pin.verdict}{f': {pin.forced}' if pin.forced else ''}"))
    if outcome.grounds:
        table.add_row("compared on", outcome.grounds)
    table.add_row("image", escape(pin.image))
    table.add_row("where", escape(outcome.where))
    if outcome.applied and not outcome.problem:
        table.add_row("pods", f"{outcome.pods} of the version")
        table.add_row("golden rows", f"{outcome.golden} as expected" if outcome.golden else "not asked")
    if outcome.applied:
        table.add_row("took", f"{outcome.seconds:.0f} s")
    if outcome.problem:
        table.add_row("problem", escape(outcome.problem))
    report.say(table)
    if mode == "apply" and not outcome.problem:
        report.say("back to the version before: bentune rollback with the same options")
    report.result(_json(outcome, mode))
    return 1 if outcome.problem else 0


def _headline(outcome: Any, mode: str, done: str) -> str:
    if mode != "apply":
        return "dry run: nothing was changed" if mode == "dry-run" else "written, not applied: commit it"
    if not outcome.problem:
        return f"{done}"
    return "undone: what served before serves again" if outcome.undone else "NOT undone: look at it"


def _json(outcome: Any, mode: str) -> dict[str, Any]:
    pin = outcome.pin
    return {
        "mode": mode,
        "tag": pin.tag,
        "content": pin.content,
        "digest": pin.digest,
        "image": pin.image,
        "verdict": pin.verdict,
        "forced": pin.forced,
        "grounds": outcome.grounds,
        "where": outcome.where,
        "before": outcome.before.tag if outcome.before else None,
        "diff": outcome.diff,
        "applied": outcome.applied,
        "problem": outcome.problem,
        "undone": outcome.undone,
        "pods": outcome.pods,
        "golden_rows": outcome.golden,
        "seconds": round(outcome.seconds, 1),
    }
