"""The command `report`, and the report that `run` ends with."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import ask
from comparisons import NASTY, comparison

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_json
from bentune.commands.report import judgement_of

Call = Callable[..., tuple[int, str, str]]


def test_report_tells_where_its_files_are(bentune: Call, tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run, root)
    answer: Any = ask("report", tiny_recipe, "--runs", tmp_path / "runs", "--json").json
    assert answer == {
        "page": str(root / "report.html"),
        "card": str(root / "README.md"),
        "recipe": str(root / "recipe.yaml"),
        "missing": [],
    }
    shutil.rmtree(root / "package")
    code, _, err = bentune("report", tiny_recipe, "--runs", tmp_path / "runs")
    assert code == 0
    assert "missing in it: package" in err


def test_run_ends_with_its_report(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs" / tiny_run.parent.name / tiny_run.name
    shutil.copytree(tiny_run, root)
    answer = ask("run", tiny_recipe, "--runs", tmp_path / "runs", "--json").json
    assert not any(stage["redone"] for stage in answer["stages"])
    assert answer["report"] == str(root / "report.html")
    assert "<h1>tiny</h1>" in (root / "report.html").read_text()


def test_without_a_run_there_is_nothing_to_report(bentune: Call, tiny_recipe: Path, tmp_path: Path) -> None:
    code, _, err = bentune("report", tiny_recipe, "--runs", tmp_path / "runs")
    assert code == 2
    assert "run `bentune data` first" in err


def test_what_no_comparison_wrote_is_named(tmp_path: Path) -> None:
    assert judgement_of(tmp_path) is None
    (tmp_path / "compare").mkdir()
    write_json(tmp_path / "compare/comparison.json", comparison())
    found = judgement_of(tmp_path)
    assert found
    assert found.verdict == comparison().verdict
    assert found.slices[0][:3] == (f"set: {NASTY}", "40", "+1 −2")
    (tmp_path / "compare/comparison.json").write_text('{"verdict": {}}')
    with pytest.raises(InputError, match=r"comparison\.json: .*run `bentune retrain` again"):
        judgement_of(tmp_path)
