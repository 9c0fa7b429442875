"""Command `retrain`: training of the next version, and its comparison with the served one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from bentune.commands.report import COMPARED, judgement_of, say_report
from bentune.console import ConsoleReporter
from bentune.options import json_option, overrides_option, recipe_argument, run_options
from bentune.outcome import exit_code_of, outcome_json, say_outcome

if TYPE_CHECKING:
    from bentune.bundle.manifest import Bundle
    from training.recipe.recipe import Recipe


@click.command()
@recipe_argument
@click.option(
    "--from", "served", required=True, metavar="SERVED", help="Served version: a tag, a directory or an address."
)
@click.option("--warm-start", is_flag=True, help="Start from the weights of the served version.")
@click.option("--replan", is_flag=True, help="Measure the runtime plan again, for example if the machine was busy.")
@overrides_option
@click.option(
    "--promoted", type=click.Path(path_type=Path), help="File for the new tag, written only if promoted; for scripts."
)
@run_options
@json_option
def retrain(
    recipe: Path,
    served: str,
    warm_start: bool,
    replan: bool,
    overrides: tuple[str, ...],
    promoted: Path | None,
    runs: Path,
    new: bool,
    as_json: bool,
) -> int:
    """Train and compare the next version.

    It is compared with SERVED on rows that are new to both. Test rows of SERVED stay test rows. If neither the rows nor
    the recipe changed since SERVED, no version is made, unless --new is given.

    Exit code 0 for PROMOTE and if no version is made, 1 for HOLD and NEED MORE ROWS.
    """
    from rollout.compare.compare import compare, require_extra
    from rollout.compare.tables import tables
    from rollout.server.live import find_served
    from training.pipeline.layout import DataFiles
    from training.pipeline.pipeline import identity, run_all
    from training.pipeline.previous_version import require_alike, weights_of
    from training.pipeline.results import DataResult, PackageResult
    from training.pipeline.run_dir import RunDir
    from training.recipe.file import load_recipe
    from training.report.report import write_report

    require_extra()
    if promoted:
        promoted.unlink(missing_ok=True)  # left by an earlier run: without a new version there is nothing to release
    report, parent = ConsoleReporter(as_json=as_json), find_served(served)
    warm = ("train.warm_start=true",) if warm_start else ()
    given = load_recipe(recipe, (*overrides, *warm, f"parent={parent.tag}")).recipe
    # Checks of later steps, before anything is trained.
    require_alike(parent, given)
    if given.warm:
        weights_of(parent, given.model, runs)
    outcomes = []
    with RunDir.open(runs, given.name, new=new, purpose=identity(given)) as run:
        report.say(f"[bold]{given.name}[/]  {escape(str(run.root))}  continues {parent.tag}")
        for outcome in run_all(given, run, report, again=("plan",) if replan else ()):
            say_outcome(report, outcome)
            outcomes.append(outcome)
            rows = outcome.result
            if isinstance(rows, DataResult) and not new and _nothing_new(parent, given, rows.fingerprint):
                report.say(f"nothing new: rows and recipe are those of {parent.tag}")
                report.result(_result(run.root, outcomes, parent.tag, parent.tag, None) | {"report": None})
                return 0
        candidate = run.result(PackageResult).model
        found = compare(
            candidate,
            # The local copy of the served bundle, not the service: a comparison must not delay live requests.
            parent.tag,
            run.files(DataFiles).held_out,
            report=report,
            slices=["set"],
            # Former test rows veto on their own: gains on new rows must not hide losses there.
            frozen={"set": "reference"},
            out=run.root / COMPARED,
            # The data stage already separated trained rows: further hits of the filters are false positives.
            leave_out_trained=True,
        )
        root, written = run.root, write_report(given, run, judgement_of(run.root))
    verdict = found.verdict
    if not as_json:
        for part in tables(found):
            report.say(part)
    report.say(f"[bold]{verdict.decision}[/]: {'; '.join(map(escape, verdict.reasons))}")
    say_report(report, written)
    report.say(
        f"release it: bentune release {candidate}" if verdict.decision == "PROMOTE" else f"see {root / COMPARED}"
    )
    told = _result(root, outcomes, candidate, parent.tag, verdict.model_dump(mode="json"))
    report.result(told | {"report": written.page})
    if promoted is not None and verdict.decision == "PROMOTE":
        promoted.write_text(f"{candidate}\n", encoding="utf-8")
    return exit_code_of(verdict, as_json=as_json)


def _nothing_new(parent: "Bundle", recipe: "Recipe", fingerprint: str) -> bool:
    """Return true if the rows and the recipe are the parent's.

    Training would repeat the parent's.
    """
    before = parent.recipe() | {"parent": None}
    return fingerprint == parent.manifest.data_fingerprint and before == recipe.model_dump(mode="json") | {
        "parent": None
    }


def _result(run: Path, outcomes: list[Any], model: str, parent: str, verdict: dict[str, Any] | None) -> dict[str, Any]:
    stages = [outcome_json(outcome) for outcome in outcomes]
    return {"run": run, "stages": stages, "model": model, "parent": parent, "verdict": verdict}
