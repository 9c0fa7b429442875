"""Commands `release` and `rollback`: a version to the cluster, and back."""

from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from bentune.bundle.errors import InputError
from bentune.console import ConsoleReporter
from bentune.options import json_option

SHOWN = 12


def target_options(command: Any) -> Any:
    """Add the options for the target, its access, --dry-run and --commit."""
    for option in reversed(
        (
            click.option("--overlay", type=click.Path(path_type=Path), help="Directory of the kustomize overlay."),
            click.option("--deployment", help="Name of the Deployment to patch, or to pick in --overlay."),
            click.option("--context", help="Context of kubectl.  [default: the current one]"),
            click.option("--namespace", "-n", help="Namespace.  [default: the overlay's, else that of the context]"),
            click.option("--url", help="Address of the Service.  [default: kubectl port-forward]"),
            click.option(
                "--timeout",
                default=300,
                show_default=True,
                type=click.IntRange(min=1),
                help="Longest wait for the next pod to turn ready, in seconds.",
            ),
            click.option("--dry-run", is_flag=True, help="Print the diff and change nothing."),
            click.option("--commit", is_flag=True, help="Write the overlay and do not apply it, for GitOps."),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("tag")
@click.option("--image", help="Image that holds the bundle and that the nodes can pull, best with @sha256:...")
@click.option("--push", metavar="REPOSITORY", help="Build the image, push it to this repository, and release it.")
@click.option("--insecure-push", is_flag=True, help="Use plain HTTP for the registry of --push.")
@click.option("--engine", help="Container engine: docker, podman or buildah.  [default: the first that answers]")
@click.option("--base", default="python:3.11-slim", show_default=True, help="Base image, with Python 3.11.")
@click.option("--force", is_flag=True, help="Release against the verdict; needs --reason.")
@click.option("--reason", default="", help="Reason for --force; it is recorded.")
@target_options
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
    """Release a promoted version to a cluster.

    The new pods are watched and checked, and the release is undone if they fail.

    Exit code 1: the verdict forbids the release, or the pods failed and the release was undone.
    """
    from bentune.bundle.store import find_bundle
    from rollout.image.push import push_image, push_model
    from rollout.release.options import ReleaseOptions
    from rollout.release.release import read_state, require_allowed
    from rollout.release.release import release as run_release

    report, bundle = ConsoleReporter(as_json=options["as_json"]), find_bundle(tag)

    if (image is None) == (push is None):
        raise InputError("give either --image REF, which holds the bundle already, or --push REPOSITORY, to build one")
    mode = _mode(options)
    target = _target(options)

    def made(repository: str) -> str:
        def said(line: str) -> None:
            report.say(f"[dim]{escape(line)}[/]")

        if mode == "dry-run":
            return f"{repository}:{bundle.manifest.version}"
        if target.container == "bundle":
            return push_model(bundle, repository, insecure=insecure_push, tell=said)
        return push_image(bundle.tag, repository, engine=engine, base=base, insecure=insecure_push, tell=said)

    listener = _pods(report)
    release_options = ReleaseOptions(listener, float(options["timeout"]), options["url"])
    state = read_state(target, release_options, mode)
    # Checked before an image is built.
    require_allowed(bundle, state, release_options, force=force, reason=reason)
    if image is None:
        image = made(push or "")
        # A build takes minutes, and another release may have happened meanwhile.
        target = _target(options)
        state = read_state(target, release_options, mode)
    if "@sha256:" not in image:
        report.say(f"[yellow]{escape(image)} has no digest: a moved tag changes the image of new pods[/]")
    with listener:
        outcome = run_release(
            target, bundle, image, release_options, state=state, force=force, reason=reason, mode=mode
        )
    return _end(report, outcome, mode, "released")


@click.command()
@target_options
def rollback(**options: Any) -> int:
    """Return to the last released version.

    It is the last version that was released and served. Its pods are watched and checked.

    Exit code 1: the pods of that version failed.
    """
    from rollout.release.options import ReleaseOptions
    from rollout.release.release import rollback as run_rollback

    report, mode = ConsoleReporter(as_json=options["as_json"]), _mode(options)
    target = _target(options)
    with _pods(report) as listener:
        release_options = ReleaseOptions(listener, float(options["timeout"]), options["url"])
        outcome = run_rollback(target, release_options, mode=mode)
    return _end(report, outcome, mode, "rolled back")


def _mode(options: dict[str, Any]) -> str:
    if options["dry_run"] and options["commit"]:
        raise InputError("--dry-run changes nothing and --commit writes the overlay: leave one out")
    if options["commit"] and options["overlay"] is None:
        raise InputError("--commit writes an overlay: name it with --overlay")
    return "dry-run" if options["dry_run"] else "commit" if options["commit"] else "apply"


def _target(options: dict[str, Any]) -> Any:
    from rollout.release.kubectl import Kubectl
    from rollout.release.target import LiveTarget, OverlayTarget

    kubectl = Kubectl(options["context"], options["namespace"])
    if options["overlay"] is not None:
        return OverlayTarget(options["overlay"], kubectl, options["deployment"])
    if options["deployment"] is None:
        raise InputError("give a target: --overlay DIRECTORY, or --deployment NAME for a running one")
    return LiveTarget(options["deployment"], kubectl)


def _pods(report: ConsoleReporter) -> Any:
    from bentune.tables.pods import Pods

    return Pods(report)


def _end(report: ConsoleReporter, outcome: Any, mode: str, done: str) -> int:
    """Print the summary and return the exit code."""
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
        table.add_row("golden rows", f"{outcome.golden} as expected" if outcome.golden else "not checked")
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
    return "undone: the former version serves again" if outcome.undone else "NOT undone: inspect the pods"


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
