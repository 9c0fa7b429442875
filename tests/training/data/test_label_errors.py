"""Labels that are probably wrong: most of those that were swapped are found, and removed from training rows alone."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from command import ask
from tiny import WORDS, Quiet, sentences, write_csv, write_recipe

from training.data import label_errors as doubtful_labels
from training.data import stage as data
from training.data.label_errors import DoubtfulRow, find_label_errors
from training.pipeline.stage import Context
from training.recipe.recipe import Recipe

Rows = list[tuple[str, str]]


def swapped(rows: Rows, share: float) -> tuple[Rows, set[str]]:
    """The rows with another label on some of them, and the texts of those."""
    generator = random.Random(3)
    chosen = set(generator.sample(range(len(rows)), round(share * len(rows))))
    labels = sorted(WORDS)
    mixed = [
        (text, generator.choice([other for other in labels if other != label]) if number in chosen else label)
        for number, (text, label) in enumerate(rows)
    ]
    return mixed, {rows[number][0] for number in chosen}


Judged = tuple[dict[str, Any], list[DoubtfulRow], dict[str, list[str]]]


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Judged]:
    """Return a function that runs the data stage.

    It returns the stage's summary, the doubtful rows, and the texts of each split.
    """

    def run(
        rows: Rows, action: str = "show", **more: Any
    ) -> tuple[dict[str, Any], list[DoubtfulRow], dict[str, list[str]]]:
        source = write_csv(tmp_path / "rows.csv", rows)
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        given = {"name": "n", "task": "text-classification", "model": "m"}
        recipe = Recipe.model_validate(given | {"data": {"source": str(source), "doubtful_labels": action} | more})
        summary = data.run(Context(recipe, work, {}, Quiet())).written()
        lines = (work / "doubtful.jsonl").read_text().splitlines() if (work / "doubtful.jsonl").is_file() else []
        texts = {file.stem: pq.read_table(file)["text"].to_pylist() for file in work.glob("*.parquet")}
        return summary, [DoubtfulRow.model_validate_json(line) for line in lines], texts

    return run


def test_most_swapped_labels_are_found_and_named_right(stage: Any) -> None:
    rows, wrong = swapped(sentences(400), 0.05)
    truth = dict(sentences(400))
    summary, found, _ = stage(rows)
    assert [row.score for row in found] == sorted(row.score for row in found)
    hits = [row for row in found if row.text in wrong]
    assert len(wrong) == 20
    assert len(hits) >= 0.75 * len(wrong)
    assert len(hits) >= 0.9 * len(found)
    assert all(row.suggested == truth[row.text] for row in hits)
    assert {row.split for row in found} == {"train", "test"}
    told = summary["doubtful_labels"]
    assert (told["rows"], told["judged"], told["removed"], told["not_judged"]) == (400, 400, 0, None)
    assert sum(told["found"].values()) == len(found)
    assert told["accuracy"] > 0.85
    assert told["first"] == [row.model_dump(exclude={"text"}) for row in found[:3]]


def test_only_training_rows_are_removed_and_the_reason_is_kept(stage: Any) -> None:
    rows, _ = swapped(sentences(400), 0.05)
    shown, found, before = stage(rows, split={"test": 0.2, "validation": 0.2})
    removed, found_again, after = stage(rows, "remove", split={"test": 0.2, "validation": 0.2})
    assert found_again == found
    gone = {row.text for row in found if row.split == "train"}
    assert len(gone) >= 6
    assert {row.split for row in found} > {"train"}
    assert after["train"] == [text for text in before["train"] if text not in gone]
    assert (after["test"], after["validation"]) == (before["test"], before["validation"])
    assert removed["rows"] == {name: len(texts) for name, texts in after.items()}
    assert sum(removed["rows_by_label"]["train"].values()) == removed["rows"]["train"]
    assert shown["rows"]["train"] - removed["rows"]["train"] == len(gone) == removed["doubtful_labels"]["removed"]
    reason = removed["dropped"]["label probably wrong"]
    assert reason["rows"] == len(gone)
    assert reason["samples"] == [row.origin for row in found if row.split == "train"][:3]
    assert "label probably wrong" not in shown["dropped"]
    # Removed rows stay on the training side: no later version holds them out.
    assert removed["fingerprint"] == shown["fingerprint"]


def test_what_is_removed_does_not_depend_on_what_is_held_out(stage: Any, tmp_path: Path) -> None:
    rows, _ = swapped(sentences(300), 0.05)
    _, before, _ = stage(rows)
    table = pq.read_table(tmp_path / "work/test.parquet")
    labels = [(label + 1) % 3 for label in table["label"].to_pylist()]
    pq.write_table(
        table.set_column(table.column_names.index("label"), "label", [labels]), tmp_path / "work/test.parquet"
    )
    recipe = Recipe.model_validate(
        {"name": "n", "task": "text-classification", "model": "m", "data": {"source": "s", "doubtful_labels": "remove"}}
    )
    again = find_label_errors(tmp_path / "work", sorted(WORDS), recipe, Quiet())
    assert again.removed == [row for row in before if row.split == "train"]
    assert sum(row.split == "test" for row in again.found) > 40


def test_the_order_of_the_file_decides_nothing(stage: Any) -> None:
    rows, _ = swapped(sentences(300), 0.05)
    _, one, _ = stage(rows)
    _, other, _ = stage(rows[::-1])
    assert [row.model_dump(exclude={"origin"}) for row in one] == [row.model_dump(exclude={"origin"}) for row in other]


def test_rows_that_are_right_are_not_doubted(stage: Any) -> None:
    summary, found, _ = stage(sentences(300), "remove")
    assert found == []
    assert summary["doubtful_labels"]["accuracy"] > 0.95
    assert summary["rows"] == {"train": 240, "test": 60}


def test_a_classifier_that_is_often_wrong_judges_nobody(stage: Any) -> None:
    generator = random.Random(0)
    rows = [(text, generator.choice("abc")) for text, _ in sentences(300)]
    summary, found, _ = stage(rows, "remove")
    told = summary["doubtful_labels"]
    assert found == []
    assert summary["rows"]["train"] == 240
    assert told["accuracy"] < 0.7
    assert told["not_judged"].endswith("of the labels right, too few to judge them by")


def test_labels_with_few_rows_are_not_judged(stage: Any) -> None:
    rows = [*sentences(200), ("a wombat 1", "rare"), ("a wombat 2", "rare"), ("a wombat 3", "rare")]
    summary, found, _ = stage(rows)
    assert all(row.label != "rare" for row in found)
    assert summary["doubtful_labels"]["judged"] == 200 < summary["doubtful_labels"]["rows"] == 203
    few, found, _ = stage(
        [("one cat", "a"), ("two cats", "a"), ("one dog", "b"), ("two dogs", "b")], split={"test": 0.5}
    )
    assert found == []
    assert few["doubtful_labels"]["not_judged"] == "fewer than two labels have 5 training rows"


def test_off_writes_nothing(stage: Any, tmp_path: Path) -> None:
    summary, _, _ = stage(swapped(sentences(100), 0.1)[0], "off")
    assert not (tmp_path / "work/doubtful.jsonl").exists()
    assert summary["doubtful_labels"]["not_judged"] == "data.doubtful_labels is off"


def test_of_many_rows_some_are_judged(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubtful_labels, "MOST_ROWS", 150)
    rows, wrong = swapped(sentences(400), 0.05)
    summary, found, _ = stage(rows, split={"test": 0.5})
    assert summary["doubtful_labels"]["judged"] == 300
    assert 5 <= len(found) <= len(wrong)
    assert sum(row.text in wrong for row in found) >= 0.75 * len(found)
    monkeypatch.setattr(doubtful_labels, "MOST_SCORES", 3 * 60)
    assert stage(rows, split={"test": 0.5})[0]["doubtful_labels"]["judged"] == 120


def test_pairs_are_judged_by_both_texts(tmp_path: Path) -> None:
    """Neither text alone tells the label."""
    generator, rows = random.Random(0), []
    for number in range(300):
        label = "yes" if number % 2 else "no"
        rows.append(
            {"one": f"{'left' if generator.random() < 0.5 else 'right'} {number}", "two": label * 2, "label": label}
        )
    for row in rows[:12]:
        row["label"] = {"yes": "no", "no": "yes"}[row["label"]]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows))
    columns = {"text": "one", "text_pair": "two", "label": "label"}
    recipe = Recipe.model_validate(
        {"name": "n", "task": "text-classification", "model": "m", "data": {"source": str(source), "columns": columns}}
    )
    work = tmp_path / "work"
    work.mkdir()
    found = data.run(Context(recipe, work, {}, Quiet())).doubtful_labels.found
    assert sum(found.values()) >= 9


def test_scripts_without_blanks_are_judged_by_characters(stage: Any) -> None:
    generator = random.Random(1)
    signs = {"a": "天地玄黃宇宙洪荒", "b": "日月盈昃辰宿列張"}
    rows = [("".join(generator.choices(signs[label] + "之乎者也", k=40)), label) for label in "ab" * 100]
    rows = [(text, {"a": "b", "b": "a"}[label] if number < 10 else label) for number, (text, label) in enumerate(rows)]
    _, found, _ = stage(rows)
    assert {row.text for row in found} <= {text for text, _ in rows[:10]}
    assert len(found) >= 7


def test_people_see_how_many_and_the_first_by_their_origin(tmp_path: Path, tiny_model: Path) -> None:
    rows, wrong = swapped(sentences(200), 0.05)
    recipe = write_recipe(tmp_path / "r.yaml", tiny_model, write_csv(tmp_path / "rows.csv", rows))
    said = ask("data", recipe, "--runs", tmp_path / "runs").err
    assert "rows whose label is probably wrong: " in said
    assert "doubtful.jsonl" in said
    shown = [line.strip() for line in said.splitlines() if ", looks like " in line]
    assert len(shown) == 3
    assert all(re.match(r"rows\.csv line \d+: (animal|food|tool), looks like ", line) for line in shown), shown
    assert not any(text in said for text in wrong)  # texts of users stay in the files


def test_people_are_told_that_labels_could_not_be_judged(tmp_path: Path, tiny_model: Path) -> None:
    generator = random.Random(0)
    rows = [(text, generator.choice("abc")) for text, _ in sentences(100)]
    recipe = write_recipe(tmp_path / "r.yaml", tiny_model, write_csv(tmp_path / "rows.csv", rows))
    said = ask("data", recipe, "--runs", tmp_path / "runs").err
    assert "labels were not judged: a quick classifier predicts " in said
    assert ", looks like " not in said
