"""The report of a run: of what there is, for this recipe only, and its recipe runs again."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from page import Page

from bentune.bundle.errors import InputError
from training.pipeline.pipeline import STAGES
from training.pipeline.run_dir import RunDir
from training.recipe.file import load_recipe
from training.report.report import write_report

NAMES = tuple(stage.name for stage in STAGES if not stage.only_if)


def test_a_finished_run(tiny_run: Path, tiny_recipe: Path, copied: Callable[[Path], Path]) -> None:
    recipe = load_recipe(tiny_recipe).recipe
    with RunDir.open(copied(tiny_run), recipe.name) as run:
        written = write_report(recipe, run)
        first = written.page.read_bytes()
        assert write_report(recipe, run).page.read_bytes() == first
        left = {path.name for path in run.root.iterdir()}
    assert left == {*NAMES, ".lock", "report.html", "README.md", "recipe.yaml"}
    assert written.missing == []
    assert load_recipe(written.recipe).recipe == recipe
    artifacts = json.loads((tiny_run / "package/artifacts.json").read_text())
    page = Page(written.page.read_text())
    assert page.table("Versions") == {tool: [version] for tool, version in artifacts["tools"].items()}
    assert artifacts["code_revision"] in page.text
    assert ModelCard.load(written.card).data.model_name == "tiny"


def test_a_run_that_stopped_has_a_report_of_what_there_is(
    tiny_run: Path, tiny_recipe: Path, copied: Callable[[Path], Path]
) -> None:
    recipe, runs = load_recipe(tiny_recipe).recipe, copied(tiny_run)
    for name in NAMES[2:]:
        shutil.rmtree(runs / tiny_run.parent.name / tiny_run.name / name)
    with RunDir.open(runs, recipe.name) as run:
        written = write_report(recipe, run)
    assert written.missing == list(NAMES[2:])
    page = Page(written.page.read_text())
    assert [text for level, text in page.headings if level == 2] == [
        *("What was trained", "The data", "Learning curves", "To do it again")
    ]
    assert f"Not in this report: {', '.join(NAMES[2:])}." in page.text


def test_what_was_done_for_another_recipe_is_left_out(
    tiny_run: Path, tiny_recipe: Path, copied: Callable[[Path], Path]
) -> None:
    recipe, other = (load_recipe(tiny_recipe, [given]).recipe for given in ("train.epochs=3", "seed=7"))
    with RunDir.open(copied(tiny_run), recipe.name) as run:
        assert write_report(recipe, run).missing == list(NAMES[1:])
        with pytest.raises(InputError, match=re.escape(f"{run.root}: no stage was done for this recipe")):
            write_report(other, run)


def test_a_stage_that_was_changed_afterwards_is_left_out_with_those_after_it(
    tiny_run: Path, tiny_recipe: Path, copied: Callable[[Path], Path]
) -> None:
    recipe = load_recipe(tiny_recipe).recipe
    with RunDir.open(copied(tiny_run), recipe.name) as run:
        (run.stage("evaluate") / "evaluation.json").write_text("{}")
        assert write_report(recipe, run).missing == ["evaluate", "package"]
