"""Command `run`, and one command for each of its stages."""

from pathlib import Path

import click
from rich.table import Table

from bentune.commands.report import say_report
from bentune.console import ConsoleReporter
from bentune.options import json_option, overrides_option, recipe_argument, run_options
from bentune.outcome import outcome_json, say_outcome
from bentune.tables.dry_run import dry_run, dry_run_option

force_option = click.option("--force", is_flag=True, help="Run the stage even if nothing changed.")


@click.command()
@recipe_argument
@overrides_option
@run_options
@dry_run_option
@json_option
def run(recipe: Path, overrides: tuple[str, ...], runs: Path, new: bool, dry: bool, as_json: bool) -> None:
    """Run all stages, from the data to a built Bento.

    A second run repeats only the stages whose inputs changed.
    """
    if dry:
        dry_run(recipe, overrides, runs, ConsoleReporter(as_json=as_json), new=new, whole=True)
        return
    from training.pipeline.pipeline import run_all
    from training.pipeline.results import PackageResult
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe
    from training.report.report import write_report

    report, loaded = ConsoleReporter(as_json=as_json), load_recipe(recipe, overrides)
    outcomes = []
    with RunDir.open(runs, loaded.recipe.name, new=new) as directory:
        report.say(f"[bold]{loaded.recipe.name}[/]  {directory.root}")
        for outcome in run_all(loaded.recipe, directory, report):
            say_outcome(report, outcome)
            outcomes.append(outcome)
        written = write_report(loaded.recipe, directory)
        package = directory.result(PackageResult)
    table = Table(show_header=False, title="done")
    for outcome in outcomes[:-1]:
        table.add_row(outcome.stage, str(outcome.directory))
    table.add_row("bundle", f"{package.model}\n{package.bundle}")
    table.add_row("Bento", f"{package.bento}\n{package.bento_path}")
    report.say(table)
    say_report(report, written)
    report.say(f"serve it: bentune serve {package.bento}")
    report.result(
        {"run": directory.root, "report": written.page, "stages": [outcome_json(outcome) for outcome in outcomes]}
    )


def _stage(name: str, text: str) -> click.Command:
    @click.command(name=name, help=text)
    @recipe_argument
    @overrides_option
    @run_options
    @force_option
    @json_option
    def stage(recipe: Path, overrides: tuple[str, ...], runs: Path, new: bool, force: bool, as_json: bool) -> None:
        _run_stage(name, recipe, overrides, runs, as_json, new=new, force=force)

    return stage


def _run_stage(
    name: str, recipe: Path, overrides: tuple[str, ...], runs: Path, as_json: bool, *, new: bool, force: bool
) -> None:
    from training.pipeline.pipeline import run_stage
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe

    report, loaded = ConsoleReporter(as_json=as_json), load_recipe(recipe, overrides)
    with RunDir.open(runs, loaded.recipe.name, new=new) as directory:
        outcome = run_stage(name, loaded.recipe, directory, report, force=force)
    say_outcome(report, outcome)
    outcome.result.require_passed()
    report.result(outcome_json(outcome))


@click.command()
@recipe_argument
@overrides_option
@run_options
@force_option
@dry_run_option
@json_option
def train(
    recipe: Path, overrides: tuple[str, ...], runs: Path, new: bool, force: bool, dry: bool, as_json: bool
) -> None:
    """Fine-tune the base model.

    Training resumes from the last checkpoint, if there is one.
    """
    if dry:
        dry_run(recipe, overrides, runs, ConsoleReporter(as_json=as_json), new=new, whole=False, force=force)
        return
    _run_stage("train", recipe, overrides, runs, as_json, new=new, force=force)


@click.command()
@recipe_argument
@overrides_option
@run_options
@force_option
@click.option("--explain", "explaining", is_flag=True, help="Only show the reasons of the last measurement.")
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
    """Measure the fastest way to run the model.

    It is measured on this CPU, and must not lose accuracy.
    """
    if not explaining:
        _run_stage("plan", recipe, overrides, runs, as_json, new=new, force=force)
        return
    from training.pipeline.layout import PlanFiles
    from training.pipeline.run_dir import RunDir
    from training.plan.report import explanation
    from training.recipe.file import load_recipe

    report = ConsoleReporter(as_json=as_json)
    with RunDir.open(runs, load_recipe(recipe, overrides).recipe.name, new=False) as directory:
        found, parts = explanation(directory.files(PlanFiles).directory)
    if not as_json:
        for part in parts:
            ConsoleReporter.page(part)
    report.result(found.model_dump(mode="json"))


STAGES = (
    _stage("data", "Read, check and split the labelled rows."),
    train,
    _stage("merge", "Fold the adapter into the base weights."),
    _stage("calibrate", "Fit a temperature. It is folded into the merged weights, if the recipe enables it."),
    _stage("evaluate", "Measure the tuned and the base model. Both are scored on the test rows."),
    _stage("export", "Write the merged model as ONNX."),
    _stage(
        "verify",
        "Prove that the conversions keep the answers. They are checked on test rows; exit code 1 names a failed hop.",
    ),
    _stage("package", "Store the bundle and build the Bento. The store is the BentoML model store."),
    plan,
)
