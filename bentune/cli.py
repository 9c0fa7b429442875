"""Entry point of the command line; a stage is imported only when its command runs."""

import json
import os
import sys
import traceback
from collections.abc import Callable

import click

from bentune.bundle.errors import BentuneError, GateError
from bentune.commands.bench import bench
from bentune.commands.capacity import capacity
from bentune.commands.compare import compare
from bentune.commands.doctor import doctor
from bentune.commands.image import image
from bentune.commands.lineage import lineage
from bentune.commands.predict import predict
from bentune.commands.recipe import recipe
from bentune.commands.release import release, rollback
from bentune.commands.replay import replay
from bentune.commands.report import report_command
from bentune.commands.retrain import retrain
from bentune.commands.run import STAGES, run
from bentune.commands.search import search
from bentune.commands.serve import serve, smoke

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="bentune")
def cli() -> None:
    """Fine-tune a transformer, prove each step to ONNX, and serve it as a Bento.

    Start with `bentune run RECIPE`; `bentune COMMAND --help` describes a command.

    Exit codes: 0 success, 1 refused by a gate, 2 wrong usage or input, 3 unexpected error, 130 interrupted.
    """


for _command in (
    run,
    *STAGES,
    bench,
    capacity,
    compare,
    doctor,
    image,
    lineage,
    predict,
    recipe,
    release,
    replay,
    report_command,
    retrain,
    rollback,
    search,
    serve,
    smoke,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_exit_code(_lead_or_follow))


def _lead_or_follow() -> int:
    """Run the command on rank 0; other processes, as started by torchrun, follow it."""
    from training.pipeline.workers import Team, team

    together = team()
    if isinstance(together, Team) and not together.leads:
        from training.pipeline.follow import follow

        return follow(together)
    code = _exit_code(_lead)
    together.send_exit(code)
    return code


def _lead() -> int:
    code = cli.main(standalone_mode=False)
    return code if isinstance(code, int) else 0


def _exit_code(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    match error:
        case click.exceptions.Abort():
            return _fail("interrupted; the same command resumes from here", 130)
        case click.ClickException() if "--json" not in sys.argv:
            error.show()
            return error.exit_code
        case click.ClickException():
            return _fail(error.format_message(), error.exit_code)
        case BentuneError():
            return _fail(str(error), error.exit_code, gate=error.gate if isinstance(error, GateError) else None)
    if os.environ.get("BENTUNE_DEBUG"):
        traceback.print_exception(error)
    return _fail(f"{type(error).__name__}: {error} (BENTUNE_DEBUG=1 shows where)", 3)


def _fail(message: str, code: int, gate: str | None = None) -> int:
    click.secho("error: ", fg="red", bold=True, err=True, nl=False)
    click.echo(message, err=True)
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": message, "exit_code": code} | ({"gate": gate} if gate else {})))
    return code


if __name__ == "__main__":
    main()
