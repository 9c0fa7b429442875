"""The report of a run: report.html, README.md (the model card) and recipe.yaml."""

from pathlib import Path
from typing import NamedTuple

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_text
from training.pipeline.pipeline import stages_of, standing
from training.pipeline.provenance import code_revision, tool_versions
from training.pipeline.run_dir import RunDir
from training.recipe.file import spelled_out
from training.recipe.recipe import Recipe
from training.report.facts import Judgement, facts_of, search_of
from training.report.model_card import CARD, model_card
from training.report.page import page_of

PAGE = "report.html"
RECIPE = "recipe.yaml"


class Written(NamedTuple):
    """The paths of the written files, and the stages that are not in them."""

    page: Path
    card: Path
    recipe: Path
    missing: list[str]


def write_report(recipe: Recipe, run: RunDir, judged: Judgement | None = None) -> Written:
    """Write the report of a run that this process holds.

    Stages that were not done for this recipe are left out. `judged` is the comparison of the run's bundle; that of
    another bundle is left out. The same stages give the same bytes. Raises InputError when no stage is done, and for a
    file that cannot be read.
    """
    stages = standing(recipe, run)
    if not stages:
        raise InputError(
            f"{run.root}: no stage was done for this recipe and these rows: run `bentune data` first, or `bentune run`"
        )
    facts, missing = facts_of(recipe, stages), [stage.name for stage in stages_of(recipe) if stage.name not in stages]
    made_with = facts.packaged
    if facts.data:
        facts = facts.model_copy(update={"search": search_of(run.root, facts.data.fingerprint)})
    if judged and made_with and judged.verdict.candidate.content == made_with.content:
        facts = facts.model_copy(update={"judged": judged})
    revision = made_with.code_revision if made_with else code_revision()
    tools = made_with.tools if made_with else tool_versions()
    written = Written(run.root / PAGE, run.root / CARD, run.root / RECIPE, missing)
    write_text(written.recipe, spelled_out(recipe))
    write_text(written.card, model_card(facts))
    write_text(written.page, page_of(facts, missing, tools, revision, str(written.recipe)))
    return written
