"""The command line: parses, calls one stage, prints. A stage is imported only when its command runs."""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import click
from rich.table import Table

from bentune.bench import bench
from bentune.capacity import capacity
from bentune.compare import compare
from bentune.image import image
from bentune.lineage import lineage
from bentune.options import json_option, overrides_option, recipe_argument, run_options
from bentune.outcome import outcome_json, say_outcome
from bentune.release import release, rollback
from bentune.replay import replay
from bentune.report import Report
from bentune.retrain import retrain
from bentune.run_report import report_command, say_report
from bentune.search import search
from service.errors import BentuneError, GateError, InputError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(package_name="bentune")
def cli() -> None:
    """Fine-tune a transformer, prove every hop to ONNX, serve it as a Bento.

    Exit codes: 0 fine, 1 a gate said no, 2 wrong usage or input, 3 something broke, 130 interrupted.
    """


@cli.command()
@recipe_argument
@overrides_option
@run_options
@json_option
def run(recipe: Path, overrides: tuple[str, ...], runs: Path, new: bool, as_json: bool) -> None:
    """Do everything from the data to a built Bento. A second run redoes only what changed."""
    from training.pipeline import run_all
    from training.recipe_file import load_recipe
    from training.report import write_report
    from training.run_dir import RunDir

    report, loaded = Report(as_json=as_json), load_recipe(recipe, overrides)
    outcomes = []
    with RunDir.open(runs, loaded.recipe.name, new=new) as directory:
        report.say(f"[bold]{loaded.recipe.name}[/]  {directory.root}")
        for outcome in run_all(loaded.recipe, directory, report):
            say_outcome(report, outcome)
            outcomes.append(outcome)
        written = write_report(loaded.recipe, directory)
    package = outcomes[-1].summary
    table = Table(show_header=False, title="done")
    for outcome in outcomes[:-1]:
        table.add_row(outcome.stage, str(outcome.directory))
    table.add_row("bundle", f"{package['model']}\n{package['bundle']}")
    table.add_row("Bento", f"{package['bento']}\n{package['bento_path']}")
    report.say(table)
    say_report(report, written)
    report.say(f"serve it: bentune serve {package['bento']}")
    report.result(
        {"run": directory.root, "report": written.page, "stages": [outcome_json(outcome) for outcome in outcomes]}
    )


def _add_stage(name: str, text: str) -> None:
    @cli.command(name=name, help=text)
    @recipe_argument
    @overrides_option
    @run_options
    @click.option("--force", is_flag=True, help="Do it again even if nothing changed.")
    @json_option
    def stage(recipe: Path, overrides: tuple[str, ...], runs: Path, new: bool, force: bool, as_json: bool) -> None:
        _run_stage(name, recipe, overrides, runs, as_json, new=new, force=force)


def _run_stage(
    name: str, recipe: Path, overrides: tuple[str, ...], runs: Path, as_json: bool, *, new: bool, force: bool
) -> None:
    from training.pipeline import run_stage
    from training.recipe_file import load_recipe
    from training.run_dir import RunDir

    report, loaded = Report(as_json=as_json), load_recipe(recipe, overrides)
    with RunDir.open(runs, loaded.recipe.name, new=new) as directory:
        outcome = run_stage(name, loaded.recipe, directory, report, force=force)
    say_outcome(report, outcome)
    report.result(outcome_json(outcome))


for _name, _text in {
    "data": "Read, check and split the labelled rows.",
    "train": "Fine-tune the base model; goes on from the last checkpoint.",
    "merge": "Fold the adapter into the base weights.",
    "calibrate": "Fit a temperature and fold it into the merged weights, if the recipe says so.",
    "evaluate": "Compare the base and the tuned model on the held-out rows.",
    "export": "Write the merged model as ONNX.",
    "verify": "Prove on held-out rows that every hop gives the same answers; exit 1 names the hop that does not.",
    "package": "Store the bundle in the BentoML model store and build the Bento.",
}.items():
    _add_stage(_name, _text)


@cli.command()
@recipe_argument
@overrides_option
@run_options
@click.option("--force", is_flag=True, help="Do it again even if nothing changed.")
@click.option("--explain", "explaining", is_flag=True, help="Only show why the winner won and each loser lost.")
@json_option
def plan(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    new: bool,
    force: bool,
    explaining: bool,
    as_json: bool,
) -> None:
    """Measure how the model is best run on this CPU without losing accuracy."""
    if not explaining:
        _run_stage("plan", recipe, overrides, runs, as_json, new=new, force=force)
        return
    from training.plan_report import explanation
    from training.recipe_file import load_recipe
    from training.run_dir import RunDir

    report = Report(as_json=as_json)
    with RunDir.open(runs, load_recipe(recipe, overrides).recipe.name, new=False) as directory:
        found, parts = explanation(directory.stage("plan"))
    if not as_json:
        for part in parts:
            Report.page(part)
    report.result(found.model_dump(mode="json"))


@cli.group()
def recipe() -> None:
    """Look at recipes."""


@recipe.command()
@recipe_argument
@overrides_option
@json_option
def explain(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print every value of a recipe and where it came from."""
    from training.recipe_file import explain as explain_recipe
    from training.recipe_file import load_recipe

    report, rows = Report(as_json=as_json), explain_recipe(load_recipe(recipe, overrides))
    table = Table("key", "value", "from", "meaning")
    for row in rows:
        table.add_row(row.key, json.dumps(row.value, ensure_ascii=False), row.origin, row.meaning)
    if not as_json:
        Report.page(table)
    report.result([row._asdict() for row in rows])


@cli.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show versions, the CPU as this process may use it, and what is missing."""
    from bentune.doctor import examine

    report, findings = Report(as_json=as_json), examine()
    table = Table("", "found", "note")
    for finding in findings:
        table.add_row(finding.name, finding.value, finding.note, style="" if finding.fine else "yellow")
    if not as_json:
        Report.page(table)
    report.result([finding._asdict() for finding in findings])


@cli.command()
@click.option("--model", "tag", required=True, help="Bundle: NAME, NAME:VERSION, or its directory.")
@click.option("--input", "input_path", required=True, type=click.Path(path_type=Path), help="CSV, TSV, JSONL or TXT.")
@click.option("--output", "output_path", required=True, type=click.Path(path_type=Path), help="JSONL, a line a row.")
@click.option("--text-column", help="Column with the text; by default the one the model was trained on.")
@click.option("--pair-column", help="Column with the second text, for a model of pairs.")
@click.option("--top-k", type=click.IntRange(min=1), help="Only the best labels.")
@click.option("--overwrite", is_flag=True, help="Replace the output, finished or not.")
@json_option
def predict(
    tag: str,
    input_path: Path,
    output_path: Path,
    text_column: str | None,
    pair_column: str | None,
    top_k: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Score a file with the service's own predictor; interrupted, the same command goes on."""
    from rollout.predict import predict_file
    from rollout.scorer import BundleScorer
    from rollout.store import find_bundle
    from service.rows import read_rows, text_of

    report, bundle = Report(as_json=as_json), find_bundle(tag)
    columns = bundle.manifest.columns
    text, pair = text_column or columns.text, pair_column or columns.text_pair
    if pair is not None and columns.text_pair is None:
        raise InputError(f"--pair-column {pair}: {bundle.tag} takes single texts; leave the option out")
    # Before the first row is scored: a bad one at the end of a long file would cost all the work before it.
    rows = 0
    for row in read_rows(input_path):
        for column in filter(None, (text, pair)):
            text_of(row, column, input_path)
        rows += 1
    with report.progress("scoring", rows) as finished:
        summary = predict_file(
            BundleScorer(bundle),
            input_path,
            output_path,
            text_column=text,
            pair_column=pair,
            top_k=top_k,
            progress=finished,
            overwrite=overwrite,
        )
    report.say(f"{summary.rows} rows in {output_path} ({summary.seconds:.1f} s, started at row {summary.resumed_at})")
    report.result({"output": output_path, "model": bundle.tag, "rows": summary.rows, "resumed_at": summary.resumed_at})


@cli.command()
@click.argument("tag")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
def serve(tag: str, host: str, port: int) -> None:
    """Serve a built Bento with `bentoml serve`."""
    from rollout.server import require_free_port, serve_command
    from rollout.store import find_bento, find_bundle
    from service.settings import Settings

    bento = find_bento(tag)
    # What the server would only say in a traceback of its worker.
    bundle = find_bundle(str(bento.info.all_models[0].tag))
    verdict = bundle.verdict()
    if verdict is not None and verdict.decision != "PROMOTE":
        said = f"{bundle.tag} was compared with {verdict.served.tag}: {verdict.decision}"
        Report(as_json=False).say(f"[yellow]{said}; another version can be named NAME:VERSION[/]")
    Settings.from_env(os.environ)
    require_free_port(host, port)
    command = serve_command(str(bento.tag), host, port)
    os.execv(command[0], command)  # noqa: S606 (a list, and no shell)


@cli.command()
@click.argument("tag")
@click.option("--rows", default=3, show_default=True, type=click.IntRange(min=1), help="Held-out rows to send.")
@json_option
def smoke(tag: str, rows: int, as_json: bool) -> None:
    """Start a built Bento, classify held-out rows over HTTP, show /info and metrics, and stop it."""
    from rollout.smoke import smoke as run_smoke

    report = Report(as_json=as_json)
    findings = run_smoke(tag, rows, report)
    report.result(findings)


cli.add_command(bench)
cli.add_command(capacity)
cli.add_command(compare)
cli.add_command(image)
cli.add_command(lineage)
cli.add_command(retrain)
cli.add_command(release)
cli.add_command(rollback)
cli.add_command(replay)
cli.add_command(report_command)
cli.add_command(search)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_exit_code(_lead_or_follow))


def _lead_or_follow() -> int:
    """Of several processes that torchrun or its like started one runs the command, and the others follow it."""
    from training.processes import EXIT, Team, team

    together = team()
    if isinstance(together, Team) and not together.leads:
        from training.follow import follow

        return follow(together)
    code = _exit_code(_command)
    together.say({EXIT: code})
    return code


def _command() -> int:
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
            return _fail("interrupted; the same command goes on from here", 130)
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
