"""Evaluation: base and tuned on the same rows, with intervals, and rows whose answer changed."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ask
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error
from tiny import sentences

from bentune.bundle.errors import InputError
from bentune.bundle.targets.one_label import OneLabel, softmax
from bentune.quality.one_label import OneLabelQuality
from training.data import stage as data
from training.prove import evaluate
from training.prove.evaluate import JudgedRows
from training.prove.evaluation import EXCERPT, SMALL, Evaluation
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.tasks.base.load import load_base
from training.tasks.logits import torch_logits
from training.tasks.rows import Carried, Rows, read_rows
from training.tasks.saved import labels_of, tokenizer_of
from training.train.methods import load_tuned

LABELS = ["animal", "food", "tool"]


@pytest.fixture(scope="module")
def answers(tiny_run: Path, tiny_recipe: Path) -> tuple[Any, Any, Rows]:
    """Logits of the base and of the tuned model on the test rows, computed here."""
    recipe, trained = load_recipe(tiny_recipe).recipe, tiny_run / "train"
    rows, tokenizer = read_rows(tiny_run / "data/test.parquet"), tokenizer_of(tiny_run / "train")
    models = load_base(recipe, LABELS).model, load_tuned(recipe, labels_of(trained), trained)
    before, after = (torch_logits(model, tokenizer, rows, 24, lambda _: None)[0] for model in models)
    return before, after, rows


def test_both_models_are_measured_on_the_same_held_out_rows(tiny_run: Path, answers: Any) -> None:
    evaluation = json.loads((tiny_run / "evaluate/evaluation.json").read_text())
    before, after, rows = answers
    for name, logits in (("base", before), ("tuned", after)):
        found, predicted = evaluation[name], logits.argmax(-1)
        assert found["rows"] == len(rows) == 60
        assert found["labels"] == LABELS
        assert found["accuracy"]["value"] == pytest.approx(accuracy_score(rows.labels, predicted))
        assert found["macro_f1"]["value"] == pytest.approx(
            f1_score(rows.labels, predicted, average="macro", zero_division=0)
        )
        scores = softmax(logits.astype(np.float64))
        assert found["log_loss"]["value"] == pytest.approx(log_loss(rows.labels, scores), rel=1e-5)
        assert (found["resamples"], found["confidence"], found["seed"]) == (200, 0.95, 42)
        assert {label: metrics["support"] for label, metrics in found["per_class"].items()} == dict.fromkeys(LABELS, 20)
        for metric in ("accuracy", "macro_f1", "log_loss"):
            assert found[metric]["low"] <= found[metric]["value"] <= found[metric]["high"]
            difference = evaluation["difference"][metric]
            assert difference["value"] == pytest.approx(
                evaluation["tuned"][metric]["value"] - evaluation["base"][metric]["value"]
            )
            assert difference["low"] <= difference["value"] <= difference["high"]
    assert evaluation["difference"]["accuracy"]["low"] > 0.3
    assert evaluation["difference"]["log_loss"]["high"] < 0


def test_rows_whose_answer_changed_are_shown(tiny_run: Path, answers: Any) -> None:
    changed = json.loads((tiny_run / "evaluate/evaluation.json").read_text())["changed"]
    before, after, rows = answers
    assert len(changed) == 5
    for shown in changed:
        row = rows.texts.index(shown["text"])
        assert shown["base"] == LABELS[before[row].argmax()] != shown["tuned"] == LABELS[after[row].argmax()]
        assert shown["gold"] == LABELS[rows.labels[row]]
        assert shown["confidence"] == pytest.approx(float(softmax(after[row]).max()), abs=1e-5)


def judged(rows: Rows, carried: Carried | None = None, **options: Any) -> JudgedRows:
    return JudgedRows(rows, rows, carried or Carried([], {}), OneLabel(labels=LABELS), OneLabelQuality(), options)


def logits(predicted: list[int], sure: list[float]) -> Any:
    result = np.zeros((len(predicted), 3), dtype=np.float32)
    result[np.arange(len(predicted)), predicted] = sure
    return result


def test_the_surest_changes_come_first_and_the_wrong_ones_are_among_them() -> None:
    gold = np.array([1, 1, 1, 1, 1, 1])
    before = logits([0, 0, 0, 0, 1, 1], [1] * 6)
    after = logits([1, 1, 1, 2, 2, 1], [1, 3, 2, 4, 5, 9])
    rows = Rows([f"row {number}" for number in range(6)], None, gold)
    shown = judged(rows).changed(before, after, 4)
    assert [row.text for row in shown] == ["row 1", "row 2", "row 4", "row 3"]
    assert [row.text for row in judged(rows).changed(before, after, 1)] == ["row 1"]
    assert judged(rows).changed(before, after, 0) == []
    assert len(judged(rows).changed(before, after, 100)) == 5
    long = Rows(["x" * 5000] * 6, None, gold)
    assert {len(row.text) for row in judged(long).changed(before, after, 9)} == {300}


def test_settings_are_used_and_the_summary_is_short(
    tiny_run: Path, tiny_recipe: Path, context: Callable[..., Any]
) -> None:
    recipe = load_recipe(
        tiny_recipe, ["evaluate.resamples=100", "evaluate.confidence=0.8", "evaluate.examples=2"]
    ).recipe
    asked = context(recipe, data=tiny_run / "data", train=tiny_run / "train")
    summary = evaluate.run(asked).written()
    evaluation = json.loads((asked.work / "evaluation.json").read_text())
    usual = json.loads((tiny_run / "evaluate/evaluation.json").read_text())
    assert (evaluation["base"]["resamples"], evaluation["base"]["confidence"]) == (100, 0.8)
    assert len(evaluation["changed"]) == 2
    width = [found["base"]["accuracy"]["high"] - found["base"]["accuracy"]["low"] for found in (evaluation, usual)]
    assert width[0] < width[1]
    assert summary == {name: evaluation[name]["accuracy"] for name in ("base", "tuned")} | {"rows": 60}
    console = Console(width=80, record=True, quiet=False, stderr=True)
    for table in asked.report.said:
        console.print(table)
    text = console.export_text()
    assert "60 test rows (80% intervals)" in text
    assert "animal (20)" in text
    assert "rows whose answer changed" in text


def test_the_base_must_still_be_the_one_that_was_tuned(
    tiny_run: Path, tiny_recipe: Path, context: Any, tmp_path: Path
) -> None:
    from tiny import make_model

    recipe = load_recipe(tiny_recipe).recipe.model_dump() | {"model": str(make_model(tmp_path / "other", seed=1))}
    with pytest.raises(InputError, match="has changed since it was tuned"):
        evaluate.run(context(Recipe.model_validate(recipe), data=tiny_run / "data", train=tiny_run / "train"))


def test_the_surest_mistakes_are_shown_with_where_they_come_from() -> None:
    gold = np.array([1, 1, 1, 1])
    after = logits([0, 1, 2, 0], [1, 9, 3, 2])
    rows = Rows(["x" * 5000, "right", "sure", "unsure"], None, gold)
    carried = Carried([f"rows.csv line {number}" for number in range(4)], {})
    shown = judged(rows, carried).mistakes(after, 2)
    assert [(one.text, one.origin, one.gold, one.predicted) for one in shown] == [
        ("sure", "rows.csv line 2", "food", "tool"),
        ("unsure", "rows.csv line 3", "food", "animal"),
    ]
    scores = softmax(after)
    assert [shown[0].confidence, shown[0].gold_score] == pytest.approx([scores[2, 2], scores[2, 1]])
    everything = judged(rows, carried).mistakes(after, 99)
    assert [len(one.text) for one in everything] == [4, 6, EXCERPT]


def test_each_slice_is_measured_on_its_own_rows() -> None:
    rng = np.random.default_rng(2)
    gold = np.array([0, 1] * 40 + [2, 1] * 5)
    after = rng.normal(size=(90, 3)).astype(np.float32)
    carried = Carried([], {"city": ["Ulm"] * 80 + ["Bonn"] * 10})
    rows = Rows([""] * 90, None, gold)
    found = judged(rows, carried, ranks=np.arange(3), resamples=50).slices(after)
    assert [(one.by, one.value, one.rows, one.small) for one in found] == [
        ("city", "Ulm", 80, False),
        ("city", "Bonn", 10, True),
    ]
    assert found[1].rows < SMALL <= found[0].rows
    for one, inside in zip(found, (slice(80), slice(80, None)), strict=True):
        predicted, here = after[inside].argmax(axis=1), gold[inside]
        assert one.metrics["accuracy"].value == pytest.approx(accuracy_score(here, predicted))
        present = sorted(set(here.tolist()))
        macro_f1 = f1_score(here, predicted, labels=present, average="macro", zero_division=0)
        assert one.metrics["macro_f1"].value == pytest.approx(macro_f1)
        assert one.metrics["mean_absolute_error"].value == pytest.approx(mean_absolute_error(here, predicted))
        assert one.metrics["accuracy"].low <= one.metrics["accuracy"].value <= one.metrics["accuracy"].high


def test_columns_of_the_source_reach_the_evaluation(
    tiny_run: Path, tiny_recipe: Path, context: Callable[..., Any], tmp_path: Path
) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        rows = [(text, label, f"{len(text) % 2}.0", label) for text, label in sentences(300)]
        csv.writer(file).writerows([("text", "label", "parity", "kind"), *rows])
    recipe = load_recipe(
        tiny_recipe, [f"data.source={tmp_path / 'rows.csv'}", "evaluate.slices=[parity, kind]", "evaluate.mistakes=3"]
    ).recipe
    prepared = context(recipe)
    data.run(prepared)
    held_out = prepared.work.rename(tmp_path / "held-out")
    asked = context(recipe, data=held_out, train=tiny_run / "train")
    evaluate.run(asked)
    found = Evaluation.model_validate_json((asked.work / "evaluation.json").read_bytes())
    # The same rows as the tiny run's, so the same metrics.
    usual = Evaluation.model_validate_json((tiny_run / "evaluate/evaluation.json").read_bytes())
    assert found.tuned == usual.tuned
    assert sorted((one.by, one.value) for one in found.slices[-3:]) == [("kind", label) for label in LABELS]
    assert {one.value for one in found.slices[:-3]} == {"0.0", "1.0"}
    for one in found.slices[-3:]:
        assert one.metrics["accuracy"].value == found.tuned.per_class[one.value].recall.value
        assert (one.rows, one.small) == (20, True)
    wrong = found.tuned.rows - round(found.tuned.rows * found.tuned.accuracy.value)
    assert len(found.mistakes) == min(3, wrong)
    console = Console(width=140, record=True, quiet=False, stderr=True)
    for said in asked.report.said:
        console.print(said)
    assert "the tuned model by column" in console.export_text()


@pytest.mark.parametrize("column", ["text", "second"])
def test_texts_are_no_slices(column: str, tiny_recipe: Path) -> None:
    with pytest.raises(InputError, match=rf"evaluate: slices: '{column}' holds the texts"):
        load_recipe(tiny_recipe, [f"evaluate.slices=[{column}]", "data.columns.text_pair=second"])


def test_a_column_that_is_not_there_is_named(tiny_recipe: Path, context: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"evaluate.slices .*no column 'lable'.*did you mean 'label'"):
        data.run(context(load_recipe(tiny_recipe, ["evaluate.slices=[lable]"]).recipe))


def test_a_model_below_the_minimum_ends_the_run_and_is_not_packaged(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "runs/tiny" / tiny_run.name)
    given = (
        tiny_recipe,
        "--runs",
        tmp_path / "runs",
        "--json",
        "--set",
        "evaluate.minimum={macro_f1: 1.0, log_loss: 0.0}",
    )
    for command in ("evaluate", "run", "package"):
        answer = ask(command, *given)
        assert (answer.code, answer.json["gate"]) == (1, "minimum")
        assert "evaluate: on 60 test rows the model misses the minimum of its recipe: " in answer.json["error"]
        assert "log_loss is only known to be" in answer.json["error"]
    # What was measured stays, for the report and for another look.
    evaluation = json.loads((tmp_path / "runs/tiny" / tiny_run.name / "evaluate/evaluation.json").read_text())
    assert [bound["metric"] for bound in evaluation["minimum"]["bounds"]] == ["macro_f1", "log_loss"]
    assert not evaluation["minimum"]["bounds"][1]["reached"]
    reached = json.loads((tiny_run / "evaluate/evaluation.json").read_text())["minimum"]
    assert reached["bounds"] == []
    assert reached["gain"]["low"] > 0.3
