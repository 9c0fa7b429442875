"""Evaluation: base and tuned on the same rows, with intervals, and rows whose answer changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, log_loss

from service.errors import InputError
from service.scores import probabilities
from training import evaluate
from training.base import load_base
from training.logits import torch_logits
from training.methods import load_tuned
from training.recipe import Recipe
from training.recipe_file import load_recipe
from training.rows import Rows, read_rows
from training.tuned import labels_of, tokenizer_of

LABELS = ["animal", "food", "tool"]


@pytest.fixture(scope="module")
def answers(tiny_run: Path, tiny_recipe: Path) -> tuple[Any, Any, Rows]:
    """Logits of the base and of the tuned model on the held-out rows, computed here."""
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
        scores = probabilities(logits.astype(np.float64))
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
        assert shown["confidence"] == pytest.approx(float(probabilities(after[row]).max()), abs=1e-5)


def logits(predicted: list[int], sure: list[float]) -> Any:
    result = np.zeros((len(predicted), 3), dtype=np.float32)
    result[np.arange(len(predicted)), predicted] = sure
    return result


def test_the_surest_changes_come_first_and_the_wrong_ones_are_among_them() -> None:
    gold = np.array([1, 1, 1, 1, 1, 1])
    before = logits([0, 0, 0, 0, 1, 1], [1] * 6)
    after = logits([1, 1, 1, 2, 2, 1], [1, 3, 2, 4, 5, 9])
    rows = Rows([f"row {number}" for number in range(6)], None, gold)
    shown = evaluate._changed(before, after, rows, LABELS, 4)
    assert [row["text"] for row in shown] == ["row 1", "row 2", "row 4", "row 3"]
    assert [row["text"] for row in evaluate._changed(before, after, rows, LABELS, 1)] == ["row 1"]
    assert evaluate._changed(before, after, rows, LABELS, 0) == []
    assert len(evaluate._changed(before, after, rows, LABELS, 100)) == 5
    long = Rows(["x" * 5000] * 6, None, gold)
    assert {len(str(row["text"])) for row in evaluate._changed(before, after, long, LABELS, 9)} == {300}


def test_settings_are_used_and_the_summary_is_short(
    tiny_run: Path, tiny_recipe: Path, context: Callable[..., Any]
) -> None:
    recipe = load_recipe(
        tiny_recipe, ["evaluate.resamples=100", "evaluate.confidence=0.8", "evaluate.examples=2"]
    ).recipe
    asked = context(recipe, data=tiny_run / "data", train=tiny_run / "train")
    summary = evaluate.run(asked)
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
    assert "60 held-out rows (80% bootstrap intervals)" in text
    assert "animal (20)" in text
    assert "rows whose answer changed" in text


def test_the_base_must_still_be_the_one_that_was_tuned(
    tiny_run: Path, tiny_recipe: Path, context: Any, tmp_path: Path
) -> None:
    from tiny import make_model

    recipe = load_recipe(tiny_recipe).recipe.model_dump() | {"model": str(make_model(tmp_path / "other", seed=1))}
    with pytest.raises(InputError, match="is not what it was when it was tuned"):
        evaluate.run(context(Recipe.model_validate(recipe), data=tiny_run / "data", train=tiny_run / "train"))
