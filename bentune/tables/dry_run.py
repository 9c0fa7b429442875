"""Tables of `--dry-run` of the commands `run` and `train`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from bentune.console import ConsoleReporter

if TYPE_CHECKING:
    from training.dry_run.dry_run import DryRun
    from training.dry_run.estimate import Estimate

dry_run_option = click.option(
    "--dry-run", "dry", is_flag=True, help="Only estimate time, memory and disk from a few measured steps."
)


def dry_run(
    recipe: Path,
    overrides: tuple[str, ...],
    runs: Path,
    report: ConsoleReporter,
    *,
    new: bool,
    whole: bool,
    force: bool = False,
) -> None:
    """Print the estimate of the `whole` run or of its train stage.

    Raises InputError when memory or disk do not suffice.
    """
    from training.dry_run.dry_run import dry_run as look
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe

    loaded = load_recipe(recipe, overrides).recipe
    with RunDir.open(runs, loaded.name, new=new) as directory:
        found = look(loaded, directory, report, whole=whole, force=force)
    if not report.as_json:
        ConsoleReporter.page(_stages(found))
        if found.training is not None:
            ConsoleReporter.page(_training(found.training))
            ConsoleReporter.page(_room(found, found.training))
        for warning in found.warnings:
            ConsoleReporter.page(f"[yellow]![/] {escape(warning)}")
    report.result(found.model_dump(mode="json"))


def _stages(found: "DryRun") -> Table:
    table = Table("stage", "", "last time", title=escape(found.run))
    for stage in found.stages:
        said = {"done": "nothing changed", "due": "will be done", "goes on": "resumes"}[stage.state]
        if stage.stage == "train" and found.training is not None:
            span = found.training.seconds
            said += f": {_spoken(span.expected)} ({_spoken(span.low)} to {_spoken(span.high)})"
        table.add_row(stage.stage, said, "" if stage.last_seconds is None else _spoken(stage.last_seconds))
    return table


def _training(training: "Estimate") -> Table:
    title = f"train: {training.rows:,} rows, {training.steps:,} steps; {training.measured_steps} were measured"
    table = Table("part", "times", "seconds", title=title)
    for part in training.parts:
        table.add_row(part.name, f"{part.times:,}", f"{part.seconds:,.1f}")
    return table


def _room(found: "DryRun", training: "Estimate") -> str:
    gpu = f", {training.gpu_peak_mb:,.0f} MB of the GPU's" if training.gpu_peak_mb is not None else ""
    later = f", and the stages after it write up to {found.later_mb:,.0f} MB" if found.later_mb else ""
    return (
        f"memory: {training.peak_memory_mb:,.0f} MB of {found.memory_mb:,.0f} MB at the most{gpu}\n"
        f"disk: {training.disk_mb:,.0f} MB while it trains, {training.kept_mb:,.0f} MB stay{later}; "
        f"{found.free_mb:,.0f} MB are free"
    )


def _spoken(seconds: float) -> str:
    """Format a duration: 12.3 s, 4 min 10 s, 3 h 5 min."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
