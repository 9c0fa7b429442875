"""Retraining: on from what is served, its weights too if asked; two at once; and exit code 1 unless it is promoted.

The comparison is a stand-in here: tests/rollout/compare/test_compare.py has the real one.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import pytest
from apart import Apart
from command import ask
from comparisons import promote, stand_in
from page import Page
from tiny import ANY, sentences, write_csv, write_recipe

from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.store import stored_at
from bentune.bundle.verdict import Decision
from rollout.lineage import lineage

SUPPORT = Path(__file__).parent.parent / "support"


@pytest.fixture
def tiny_tag(trained_tag: str) -> str:
    """A version that was trained: what is retrained goes on from its rows and weights."""
    return trained_tag


@pytest.fixture
def tiny_bundle(trained_bundle: Path) -> Path:
    return trained_bundle


@pytest.fixture
def calls() -> list[Any]:
    return []


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> Any:
    """Set what the comparison will say."""

    def say(decision: Decision) -> None:
        monkeypatch.setitem(sys.modules, "rollout.compare.compare", stand_in(decision, calls))

    return say


@pytest.fixture
def cleaned(tiny_tag: str) -> Iterator[None]:
    """The stores as they were, for other tests go by the newest of a name."""
    yield
    for store in (bentoml.models, bentoml.bentos):
        for item in store.list(tiny_tag.partition(":")[0]):
            if str(item.tag) != tiny_tag:
                store.delete(item.tag)


@pytest.fixture
def grown(tmp_path: Path, tiny_model: Path, tiny_csv: Path) -> Path:
    """The recipe of the tiny bundle on a folder with its rows and new ones."""
    folder = tmp_path / "rows"
    folder.mkdir()
    shutil.copyfile(tiny_csv, folder / "1.csv")
    write_csv(folder / "2.csv", sentences(60, seed=1))
    return write_recipe(tmp_path / "tiny.yaml", tiny_model, folder)


def stored(tag: str) -> Bundle:
    return open_bundle(Path(bentoml.models.get(tag).path))


@pytest.mark.usefixtures("cleaned")
def test_a_new_version_continues_what_is_served(
    grown: Path, tiny_run: Path, tiny_tag: str, tiny_bundle: Path, tmp_path: Path, judged: Any, calls: list[Any]
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(tiny_run, runs / "tiny" / tiny_run.name)
    before = {path: path.read_bytes() for path in (runs / "tiny").rglob("*.json")}
    given = ("retrain", grown, "--from", tiny_tag, "--runs", runs, "--warm-start", "--set", "train.epochs=2")
    judged(Decision.PROMOTE)
    answer = ask(*given, "--json", "--promoted", tmp_path / "promoted")
    assert answer.code == 0, answer.err
    assert (tmp_path / "promoted").read_text() == answer.json["model"] + "\n"
    child, parent = stored(answer.json["model"]), open_bundle(tiny_bundle)
    assert child.manifest.parent is not None
    assert (child.manifest.parent.tag, child.manifest.parent.content) == (tiny_tag, parent.content)
    assert child.manifest.version > parent.manifest.version
    assert answer.json["verdict"]["decision"] == "PROMOTE"
    assert answer.json["parent"] == tiny_tag
    # It was compared on what the parent held out and on fresh rows.
    ((candidate, served, rows, options),) = calls
    assert (candidate, served) == (child.tag, tiny_tag)
    continued = child.evidence()["data"]["parent"]
    assert [sum(row["set"] == name for row in rows) for name in ("reference", "fresh")] == [60, 12]
    assert (continued["reference"], continued["fresh"], continued["missing"]) == (60, 12, 0)
    assert set(rows[0]) == {"text", "label", "set"}
    assert {row["label"] for row in rows} == set(child.manifest.labels)
    assert (options["slices"], options["frozen"]) == (["set"], {"set": "reference"})
    # Its page says so, and can be written again from what lies beside it.
    page = Page(Path(answer.json["report"]).read_text())
    assert f"PROMOTE: compared with {tiny_tag} on 72 rows" in " ".join(page.text.split())
    assert f"--from {tiny_tag} --new" in page.text
    again = ask("report", grown, *given[2:], "--json").json
    assert (again["page"], again["missing"]) == (answer.json["report"], [])
    assert ask("report", again["recipe"], "--runs", runs, "--json").json == again
    assert Page(Path(again["page"]).read_text()).html == page.html
    # Its run is its own, and the parent's is as it was.
    root = Path(answer.json["run"])
    assert root != runs / "tiny" / tiny_run.name
    assert options["out"] == root / "compare"
    assert {path: path.read_bytes() for path in before} == before
    # A warm start begins where the parent ended, a cold one knows nothing.
    cold, warm = (json.loads((run / "evaluate/evaluation.json").read_text())["base"] for run in (tiny_run, root))
    assert cold["accuracy"]["value"] < 0.6 < 0.9 < warm["accuracy"]["value"]
    assert warm["log_loss"]["value"] < 0.5 * cold["log_loss"]["value"]
    assert child.manifest.base_model.source == tiny_tag
    assert child.manifest.labels == parent.manifest.labels
    # Again: nothing changed, and what does not may replace it is held.
    judged(Decision.HOLD)
    again = ask(*given)
    assert again.code == 1
    assert again.err.count("nothing changed") == 8
    assert "HOLD: it is HOLD" in again.err
    assert f"error: HOLD: {child.tag} does not replace {tiny_tag}" in again.err
    judged(Decision.NEED_MORE_ROWS)
    assert f"NEED MORE ROWS, 900 rows in all: {child.tag}" in ask(*given).err
    refused = ask(*given, "--json")
    assert (refused.code, refused.json["verdict"]["decision"]) == (1, "NEED MORE ROWS")
    # A plan that was measured on a busy machine can be measured again. A different result makes another version.
    replanned = ask(*given, "--replan", "--json").json["stages"]
    assert [stage["stage"] for stage in replanned if stage["redone"]][:1] == ["plan"]
    versions = {version.tag: version for version in lineage("tiny").versions}
    assert versions[child.tag].more == 60
    assert {change.key for change in versions[child.tag].changed or []} == {
        *("data.source", "train.epochs", "train.warm_start")
    }


def test_where_nothing_is_new_nothing_is_made(
    tiny_recipe: Path, tiny_tag: str, tmp_path: Path, judged: Any, calls: list[Any]
) -> None:
    judged(Decision.PROMOTE)
    given = ("retrain", tiny_recipe, "--from", tiny_tag, "--runs", tmp_path / "runs")
    promoted = tmp_path / "promoted"
    promoted.write_text("of a run before\n")
    answer = ask(*given, "--json", "--promoted", promoted)
    assert (answer.code, answer.json["model"], answer.json["verdict"]) == (0, tiny_tag, None)
    assert not promoted.exists()
    assert [stage["stage"] for stage in answer.json["stages"]] == ["data"]
    assert calls == []
    assert f"nothing new: rows and recipe are those of {tiny_tag}" in ask(*given).err


def test_labels_that_were_swapped_are_refused_before_anything_is_trained(
    grown: Path, tiny_tag: str, tmp_path: Path, judged: Any, calls: list[Any]
) -> None:
    """A candidate learns the swap, and rows that carry it would call that right."""
    judged(Decision.PROMOTE)
    other = {"animal": "food", "food": "animal", "tool": "tool"}
    write_csv(grown.parent / "rows/1.csv", [(text, other[label]) for text, label in sentences(300)])
    answer = ask("retrain", grown, "--from", tiny_tag, "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "of 60 rows in the parent's test set, 40 have another label in " in answer.err
    assert (list((tmp_path / "runs").glob("*/*/*/stage.json")), calls) == ([], [])


@pytest.mark.usefixtures("cleaned")
def test_the_columns_that_are_compared_by_come_along(
    grown: Path, tiny_tag: str, tmp_path: Path, judged: Any, calls: list[Any]
) -> None:
    judged(Decision.PROMOTE)
    for file in (grown.parent / "rows").glob("*.csv"):
        head, *rows = file.read_text().splitlines()
        regions = [f"{row},{'north' if number % 2 else 'south'}" for number, row in enumerate(rows)]
        file.write_text("\n".join([f"{head},region", *regions]))
    given = ("retrain", grown, "--from", tiny_tag, "--runs", tmp_path / "runs", "--set", "train.epochs=1", *ANY)
    wrong = ask(*given, "--set", 'compare.slices=["regoin"]')
    assert wrong.code == 2
    assert "has no column 'regoin'; the columns are 'text', 'label', 'region'; did you mean 'region'?" in wrong.err
    texts = ask(*given, "--set", 'compare.slices=["text"]')
    assert "compare.slices: 'text' holds the texts; slice by another column" in texts.err
    # More test rows than may be compared on: 50 of the 72 are drawn.
    answer = ask(*given, "--set", 'compare.slices=["region"]', "--set", "compare.max_rows=50")
    assert answer.code == 0, answer.err
    ((_, _, rows, _),) = calls
    assert len(rows) == 50
    assert set(rows[0]) == {"text", "label", "set", "region"}
    assert {row["region"] for row in rows} == {"north", "south"}
    assert {row["set"] for row in rows} == {"reference", "fresh"}
    assert "the comparison uses 50 of them" in answer.err


@pytest.mark.usefixtures("cleaned")
def test_two_retrains_of_a_name_at_once_do_not_tread_on_each_other(grown: Path, tiny_tag: str, tmp_path: Path) -> None:
    given = (
        "retrain",
        grown,
        "--from",
        tiny_tag,
        "--runs",
        tmp_path / "runs",
        "--json",
        "--set",
        "train.epochs=1",
        *ANY,
    )
    both = [Apart(tmp_path / name, *given, prepare=promote) for name in ("first", "second")]
    assert [command.code(500) for command in both] == [0, 0], [command.err for command in both]
    answers = [command.json for command in both]
    assert len({answer["run"] for answer in answers}) == 2
    bundles = [stored(answer["model"]) for answer in answers]
    assert len({bundle.tag for bundle in bundles}) == 2
    seconds = [stored_at(bundle.manifest.version) for bundle in bundles]
    assert None not in seconds
    assert len(set(seconds)) == 2
    for bundle, answer in zip(bundles, answers, strict=True):
        assert bundle.manifest.version > tiny_tag.partition(":")[2]
        assert bundle.manifest.parent is not None
        assert str(bentoml.bentos.get(bundle.tag).path) == answer["stages"][-1]["summary"]["bento_path"]
    # The same rows, the same split, the same seed: the same model twice.
    assert len({bundle.manifest.files["model/fp32.onnx"].sha256 for bundle in bundles}) == 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.columns.text_pair=second"], "takes single texts, and so must what continues it"),
        (["train.warm_start=true"], "no run in .*tiny made it"),
        (["train.warm_start=true", "model=other"], "come from .*tiny-bert, the recipe's model is other"),
        (["data.columns.text=set"], "a text column cannot be called 'set' with a parent"),
    ],
)
def test_what_cannot_continue_is_refused_before_anything_is_done(
    overrides: list[str], words: str, grown: Path, tiny_tag: str, tmp_path: Path, judged: Any
) -> None:
    judged(Decision.PROMOTE)
    options = [part for override in overrides for part in ("--set", override)]
    answer = ask("retrain", grown, "--from", tiny_tag, "--runs", tmp_path / "runs", *options)
    assert answer.code == 2
    assert re.search(words, answer.err), answer.err
    assert not list((tmp_path / "runs").glob("*/*"))


def test_weights_that_were_changed_since_are_not_gone_on_with(
    grown: Path, tiny_run: Path, tiny_tag: str, tmp_path: Path, judged: Any
) -> None:
    judged(Decision.PROMOTE)
    root = Path(shutil.copytree(tiny_run, tmp_path / "runs/tiny" / tiny_run.name))
    with (root / "merge/model/model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    answer = ask("retrain", grown, "--from", tiny_tag, "--runs", tmp_path / "runs", "--warm-start")
    assert answer.code == 2
    assert f"{root / 'merge'} is not what it was when {tiny_tag} was made" in answer.err
