"""The data stage where rows have any number of labels."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import Quiet, tagged

from bentune.bundle.errors import InputError
from bentune.bundle.seen_rows import labelled_key
from training.data import stage as data
from training.data.report import DataReport
from training.pipeline.stage import Context
from training.recipe.recipe import Recipe
from training.tasks.rows import read_rows


def recipe(source: Path, **more: Any) -> Recipe:
    values = {"source": str(source), "multi_label": True} | more
    return Recipe.model_validate({"name": "x", "task": "text-classification", "model": "m", "data": values})


def run(work: Path, recipe: Recipe) -> dict[str, Any]:
    work.mkdir()
    return data.run(Context(recipe, work, {}, Quiet())).written()


def jsonl(path: Path, rows: list[tuple[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows))
    return path


def test_every_way_to_write_labels_gives_the_same_rows(tmp_path: Path) -> None:
    rows = tagged(90)
    with (tmp_path / "separated.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, "; ".join(labels)) for text, labels in rows)])
    with (tmp_path / "json.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, json.dumps(labels)) for text, labels in rows)])
    columns = {"text": [text for text, _ in rows], "label": [labels for _, labels in rows]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    forms = [
        recipe(tmp_path / "separated.csv", label_separator=";"),
        recipe(tmp_path / "json.csv"),
        recipe(jsonl(tmp_path / "rows.jsonl", rows)),
        recipe(jsonl(tmp_path / "turned.jsonl", rows[::-1])),
        recipe(tmp_path / "rows.parquet"),
    ]
    found = [run(tmp_path / f"work-{number}", form) for number, form in enumerate(forms)]
    for number, summary in enumerate(found):
        assert summary["labels"] == ["animal", "food", "tool"]
        assert summary["fingerprint"] == found[0]["fingerprint"]
        assert summary["rows"] == found[0]["rows"]
        work = tmp_path / f"work-{number}"
        assert {*read_rows(work / "test.parquet").texts} == {*read_rows(tmp_path / "work-0/test.parquet").texts}
    given = dict(rows)
    for part in ("train", "test"):
        read = read_rows(tmp_path / f"work-0/{part}.parquet")
        expected = [[label in given[text] for label in ("animal", "food", "tool")] for text in read.texts]
        assert read.labels.dtype == np.int64
        assert read.labels.tolist() == np.array(expected, dtype=int).tolist()
        counts = dict(zip(("animal", "food", "tool"), read.labels.sum(axis=0).tolist(), strict=True))
        assert found[0]["rows_by_label"][part] == counts
        assert found[0]["labels_a_row"][part] == {
            "mean": pytest.approx(read.labels.sum(axis=1).mean()),
            "without": int((read.labels.sum(axis=1) == 0).sum()),
        }
    report = DataReport.model_validate_json((tmp_path / "work-0/report.json").read_bytes())
    assert report.parts["train"].labels == found[0]["rows_by_label"]["train"]


def test_each_label_has_its_share_on_every_side(tmp_path: Path) -> None:
    rows = [(f"text {number}", ["rare"] * (number < 10) + ["common"] * (number % 3 > 0)) for number in range(300)]
    found = run(tmp_path / "work", recipe(jsonl(tmp_path / "rows.jsonl", rows), split={"test": 0.2, "validation": 0.5}))
    assert {part: counts["rare"] for part, counts in found["rows_by_label"].items()} == {
        "train": 4,
        "test": 2,
        "validation": 4,
    }
    assert found["rows_by_label"]["test"]["common"] == 40
    assert found["labels_a_row"]["test"]["without"] == pytest.approx(20, abs=1)


def test_groups_stay_whole_and_share_the_labels(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": f"text {number} {number}", "label": ["a"] * (number % 4 == 0) + ["b"], "who": number // 5})
        for number in range(400)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found = run(tmp_path / "work", recipe(tmp_path / "rows.jsonl", split={"test": 0.25, "group": "who"}))
    assert found["rows_by_label"]["test"]["a"] == pytest.approx(25, abs=3)
    assert found["rows_by_label"]["test"]["b"] == pytest.approx(100, abs=5)


def test_labels_are_renamed_and_merged(tmp_path: Path) -> None:
    rows = [(f"text {number}", ["auth", "login"] if number % 2 else ["billing"]) for number in range(40)]
    found = run(tmp_path / "work", recipe(jsonl(tmp_path / "rows.jsonl", rows), labels={"auth": "login"}))
    assert found["labels"] == ["billing", "login"]
    assert found["labels_a_row"]["train"]["mean"] == 1


def test_the_same_text_with_other_labels_contradicts_and_with_the_same_is_a_copy(tmp_path: Path) -> None:
    rows = [*tagged(60), *[("one and the same", ["food", "tool"])] * 2, ("one and the same", ["tool"])]
    work = tmp_path / "work"
    found = run(work, recipe(jsonl(tmp_path / "rows.jsonl", rows)))
    assert (
        found["dropped"]["same text as another row, other label"]["rows"]
        + found["dropped"].get("duplicate", {"rows": 0})["rows"]
        == 2
    )
    parts = [read_rows(work / f"{part}.parquet") for part in ("train", "test")]
    assert sum(part.texts.count("one and the same") for part in parts) == 1
    report = DataReport.model_validate_json((work / "report.json").read_bytes())
    labels = {side.label for pair in report.contradictions[0].samples for side in (pair.kept, pair.other)}
    assert labels == {'["food", "tool"]', '["tool"]'}


def test_the_labels_of_hub_rows_have_their_names(tmp_path: Path) -> None:
    import datasets

    kind = datasets.List(datasets.ClassLabel(names=["bad", "good"]))
    features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    rows = {"text": [f"text {number}" for number in range(30)], "label": [[number % 2] for number in range(29)] + [[]]}
    root = tmp_path / "hub"
    (root / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "data/train-00000-of-00001.parquet")
    found = run(tmp_path / "work", recipe(root))
    assert found["labels"] == ["bad", "good"]
    assert sum(one["without"] for one in found["labels_a_row"].values()) == 1


def test_a_row_is_known_by_all_of_its_labels(tmp_path: Path) -> None:
    from bentune.bundle.manifest import ROWS
    from bentune.bundle.seen_rows import SeenRows, row_key

    work = tmp_path / "work"
    run(work, recipe(jsonl(tmp_path / "rows.jsonl", [*tagged(60), ("the one", ["tool", "food"])])))
    seen = SeenRows.model_validate_json((work / ROWS).read_bytes())
    key = row_key("the one", None)
    keys = [labelled_key(key, '["food", "tool"]'), labelled_key(key, '["food"]')]
    assert seen.labelled.has(keys).tolist() == [True, False]


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([("one", "a"), ("two", ["a"])], {}, "line 1: column 'label' is a text: write a JSON list"),
        ([("one", None), ("two", ["a"])], {}, "line 1: column 'label' is not a list of labels"),
        ([("one", []), ("two", [])], {}, "has no label; a classifier needs two"),
        ([("one", ["a"]), ("two", [])], {}, "has only the label 'a'; a classifier needs two"),
        ([("one", ["a"]), ("two", ["a", "b"])], {}, "label 'b' has a single row"),
        ([("one", ["a"]), ("two", ["b"])], {"labels": {"c": "d"}}, "no row of .* has the label 'c'"),
        ([(f"text {n}", [f"label {n}"]) for n in range(2001)], {}, "has 2,001 labels"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, rows: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run(tmp_path / "work", recipe(jsonl(tmp_path / "rows.jsonl", rows), **more))


def test_a_folder_of_classes_has_one_label_for_each_text(tmp_path: Path) -> None:
    (tmp_path / "rows/sports").mkdir(parents=True)
    (tmp_path / "rows/sports/one.txt").write_text("a game")
    with pytest.raises(InputError, match="data.multi_label: .* gives each text one label"):
        run(tmp_path / "work", recipe(tmp_path / "rows"))


def test_a_label_too_many_or_too_few_is_doubted_and_removed_from_training_rows(tmp_path: Path) -> None:
    rows = [(text, labels) for text, labels in tagged(300)]
    wrong = {row: sorted({*rows[row][1]} ^ {"food"}) for row in range(0, 300, 23)}
    given = [(text, wrong.get(row, labels)) for row, (text, labels) in enumerate(rows)]
    source = jsonl(tmp_path / "rows.jsonl", given)
    shown, removed = (tmp_path / name for name in ("shown", "removed"))
    summary = run(shown, recipe(source))
    assert summary["doubtful_labels"]["accuracy"] > 0.7
    found = [json.loads(line) for line in (shown / "doubtful.jsonl").read_text().splitlines()]
    texts = {rows[row][0]: ", ".join(rows[row][1]) or "(none)" for row in wrong}
    hits = [row for row in found if row["text"] in texts]
    assert len(hits) >= 5
    assert len(hits) > 0.7 * len(found)
    assert sum(row["suggested"] == texts[row["text"]] for row in hits) > 0.8 * len(hits)
    assert {"split", "origin", "text", "label", "suggested", "score"} == found[0].keys()
    less = run(removed, recipe(source, doubtful_labels="remove"))
    gone = [row for row in found if row["split"] == "train"]
    assert less["rows"]["train"] == summary["rows"]["train"] - len(gone) == len(read_rows(removed / "train.parquet"))
    assert less["rows"]["test"] == summary["rows"]["test"]
    counts = read_rows(removed / "train.parquet").labels.sum(axis=0).tolist()
    assert less["labels_a_row"]["train"]["mean"] == pytest.approx(sum(counts) / less["rows"]["train"])
    assert [less["rows_by_label"]["train"][label] for label in ("animal", "food", "tool")] == counts
