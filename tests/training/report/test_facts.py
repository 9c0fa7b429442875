"""The facts are what the stages wrote; a file that no stage wrote is named."""

import json
import shutil
from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_json
from training.pipeline.pipeline import STAGES
from training.recipe.file import digest, load_recipe
from training.report.facts import SHOWN_DOUBTFUL, compared, facts_of, search_of
from training.search.result import SearchResult, Tried

NAMES = tuple(stage.name for stage in STAGES if not stage.only_if)


def test_they_are_those_of_the_stages(tiny_run: Path, tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe).recipe
    facts = facts_of(recipe, {name: tiny_run / name for name in NAMES})
    assert list(facts.seconds) == list(NAMES)
    assert facts.recipe_digest == digest(recipe)
    assert facts.data
    assert facts.data.rows == {"train": 240, "test": 60}
    assert facts.evaluation
    assert [one.key for one in compared(facts.evaluation)][:3] == ["accuracy", "macro_f1", "mcc"]
    assert compared(facts.evaluation)[0].change == facts.evaluation.difference.accuracy
    assert facts.parity
    hops = json.loads((tiny_run / "verify/parity.json").read_text())["hops"]
    assert facts.parity.largest_difference == max(hop["largest_difference"] for hop in hops)
    assert facts.plan
    assert facts.packaged
    assert facts.training
    assert facts.training.hardware
    lines = (tiny_run / "data/doubtful.jsonl").read_text().splitlines()
    assert [row.model_dump() for row in facts.doubtful] == [json.loads(line) for line in lines][:SHOWN_DOUBTFUL]


@pytest.mark.parametrize("stages", [(), ("data",), ("data", "train")])
def test_a_run_that_stopped_has_the_facts_of_its_stages(
    stages: tuple[str, ...], tiny_run: Path, tiny_recipe: Path
) -> None:
    facts = facts_of(load_recipe(tiny_recipe).recipe, {name: tiny_run / name for name in stages})
    assert (facts.data is not None, facts.training is not None) == ("data" in stages, "train" in stages)
    assert facts.evaluation is facts.parity is facts.plan is facts.packaged is None


@pytest.mark.parametrize("content", ["", "[]", '{"rows": 3}', "[" * 100_000])
def test_a_file_that_no_stage_wrote_is_named(content: str, tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "verify", tmp_path / "verify")
    (tmp_path / "verify/parity.json").write_text(content)
    with pytest.raises(InputError, match=r"parity\.json: .*run `bentune verify --force RECIPE` again"):
        facts_of(load_recipe(tiny_recipe).recipe, {"verify": tmp_path / "verify"})


def test_doubtful_rows_are_the_first_of_the_file(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "data", tmp_path / "data")
    line = {"split": "train", "origin": "row", "text": "a cat", "label": "food", "suggested": "animal", "score": 0.1}
    lines = [json.dumps(line | {"origin": f"row {number}"}) for number in range(SHOWN_DOUBTFUL + 3)]
    (tmp_path / "data/doubtful.jsonl").write_text("\n".join(lines))
    recipe, stages = load_recipe(tiny_recipe).recipe, {"data": tmp_path / "data"}
    assert [row.origin for row in facts_of(recipe, stages).doubtful] == [f"row {n}" for n in range(SHOWN_DOUBTFUL)]
    for wrong in ("{", '{"split": "train"}', "[" * 100_000):
        (tmp_path / "data/doubtful.jsonl").write_text(wrong)
        with pytest.raises(InputError, match=r"doubtful\.jsonl: .*run `bentune data --force RECIPE` again"):
            facts_of(recipe, stages)


def test_a_search_on_other_rows_is_not_of_this_run(tmp_path: Path) -> None:
    assert search_of(tmp_path, "f") is None
    tried = Tried(number=0, state="complete", value=1.0, values={"seed": 1}, seconds=1.0)
    rows = {"train": 3, "validation": 1}
    found = SearchResult(
        fingerprint="f", metric="loss", direction="minimize", rows=rows, trials=[tried], best=tried, own=None
    )
    (tmp_path / "search").mkdir()
    write_json(tmp_path / "search/search.json", found)
    assert search_of(tmp_path, "f") == found
    assert search_of(tmp_path, "g") is None
    (tmp_path / "search/search.json").write_text("{}")
    with pytest.raises(InputError, match=r"search\.json: .*run `bentune search RECIPE` again"):
        search_of(tmp_path, "f")
