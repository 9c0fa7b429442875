"""Commands `serve` and `smoke`: a built Bento on this machine."""

import os

import click

from bentune.console import ConsoleReporter
from bentune.options import json_option


@click.command()
@click.argument("tag")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
def serve(tag: str, host: str, port: int) -> None:
    """Serve a built Bento on this machine."""
    from bentune.bundle.store import find_bento, find_bundle
    from rollout.server.server import require_free_port, serve_command
    from service.settings import Settings

    bento = find_bento(tag)
    # Checked here, because the server would show these errors only as a traceback of its worker.
    bundle = find_bundle(str(bento.info.all_models[0].tag))
    verdict = bundle.verdict()
    if verdict is not None and verdict.decision != "PROMOTE":
        said = f"{bundle.tag} was compared with {verdict.served.tag}: {verdict.decision}"
        ConsoleReporter(as_json=False).say(f"[yellow]{said}; give NAME:VERSION to serve another version[/]")
    Settings.from_env(os.environ)
    require_free_port(host, port)
    command = serve_command(str(bento.tag), host, port)
    os.execv(command[0], command)  # noqa: S606 (a list, not a shell)


@click.command()
@click.argument("tag")
@click.option("--rows", default=3, show_default=True, type=click.IntRange(min=1), help="Golden rows to send.")
@json_option
def smoke(tag: str, rows: int, as_json: bool) -> None:
    """Send golden rows to a built Bento.

    The Bento is started and stopped; the answers, /info and metrics are shown.
    """
    from rollout.smoke import smoke as run_smoke

    report = ConsoleReporter(as_json=as_json)
    findings = run_smoke(tag, rows, report)
    report.result(findings)
