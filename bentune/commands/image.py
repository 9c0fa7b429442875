"""Command `image`: container image of a Bento."""

import subprocess

import click
from rich.markup import escape

from bentune.console import ConsoleReporter
from bentune.options import json_option


@click.command()
@click.argument("tag")
@click.option("--name", help="Name of the image.  [default: bentune/NAME:VERSION]")
@click.option("--engine", help="Container engine: docker, podman or buildah.  [default: the first that answers]")
@click.option("--base", default="python:3.11-slim", show_default=True, help="Base image, with Python 3.11.")
@click.option("--revision", help="Source revision for the labels.  [default: of the current git checkout]")
@click.option(
    "--only", type=click.Choice(["model", "server"]), help="Build only the model's image, or the server's without it."
)
@json_option
def image(
    tag: str,
    name: str | None,
    engine: str | None,
    base: str,
    revision: str | None,
    only: str | None,
    as_json: bool,
) -> None:
    """Build a container image of a Bento.

    The image is hardened and has the model in its own layer. With --only, build one of the two images that the
    component `model-image` of k8s/ combines.
    """
    from bentune.bundle.store import find_bento
    from rollout.image.bento_image import build_image, find_engine

    report, bento = ConsoleReporter(as_json=as_json), find_bento(tag)
    built = build_image(
        bento,
        name or f"bentune/{bento.tag.name}{f'-{only}' if only else ''}:{bento.tag.version}",
        engine=find_engine(engine),
        base=base,
        revision=_revision() if revision is None else revision,
        only=only,
        tell=lambda line: report.say(f"[dim]{escape(line)}[/]"),
    )
    report.say(f"[bold]{built.name}[/] of {built.model}")
    if only is None:
        report.say(f"run it: {built.engine} run --rm -p 3000:3000 --read-only --tmpfs /tmp {built.name}")
    report.result({"image": built.name, "engine": built.engine, "bento": built.bento, "model": built.model})


def _revision() -> str:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
