"""Distillation: Hinton's loss, the teacher asked once, and a student that does as the teacher says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from tiny import Quiet
from transformers import AutoTokenizer, DataCollatorWithPadding

from bentune.bundle.errors import InputError
from training.pipeline.stage import Context
from training.prove import evaluate
from training.recipe.compression import DistillSettings
from training.recipe.file import load_recipe
from training.tasks.logits import torch_logits
from training.tasks.rows import read_rows
from training.tasks.targets.losses import cross_entropy
from training.train import stage as train
from training.train.compress import distillation
from training.train.compress.distillation import ANSWERS, DistillationLoss, ask_teacher, taught
from training.train.methods import load_tuned

LABELS = ["animal", "food", "tool"]
rows_of_logits = st.lists(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3), min_size=1, max_size=4)


def loss_of(student: list[list[float]], teacher: list[list[float]], temperature: float, weight: float) -> float:
    settings = DistillSettings(teacher="x", temperature=temperature, weight=weight)
    labels = torch.tensor([[row % 3, *logits] for row, logits in enumerate(teacher)])
    return float(DistillationLoss(settings, cross_entropy)(torch.tensor(student), labels, {}))


@given(rows_of_logits, st.data(), st.floats(0.5, 8), st.floats(0, 1))
def test_the_loss_is_that_of_the_paper(
    student: list[list[float]], data: st.DataObject, temperature: float, weight: float
) -> None:
    row = st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3)
    teacher = data.draw(st.lists(row, min_size=len(student), max_size=len(student)))
    soft, wanted = (log_softmax(np.array(one) / temperature, axis=-1) for one in (student, teacher))
    divergence = (np.exp(wanted) * (wanted - soft)).sum(axis=-1).mean()
    hard = -np.mean([log_softmax(logits)[place % 3] for place, logits in enumerate(student)])
    expected = weight * temperature**2 * divergence + (1 - weight) * hard
    assert loss_of(student, teacher, temperature, weight) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_gradient_keeps_its_size_at_any_temperature() -> None:
    """The factor T^2 of the loss keeps the gradient's size.

    At high temperatures the gradient becomes that of the squared difference of the logits.
    """
    sizes = []
    for temperature in (20.0, 40.0):
        student = torch.tensor([[0.3, -0.2, 0.1]], requires_grad=True)
        loss = DistillationLoss(DistillSettings(teacher="x", temperature=temperature, weight=1), cross_entropy)
        loss(student, torch.tensor([[0.0, 1.0, -1.0, 0.5]]), {}).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_rows_without_a_teacher_count_by_their_labels() -> None:
    logits, labels = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([1, 0])
    loss = DistillationLoss(DistillSettings(teacher="x", weight=1), cross_entropy)
    assert float(loss(logits, labels, {})) == pytest.approx(float(cross_entropy(logits, labels, {})))


def test_rows_carry_their_answers_into_the_batch(tiny_model: Path) -> None:
    rows = Dataset.from_dict({"input_ids": [[2, 5, 3], [2, 3]], "labels": [2, 0]})
    answers = np.array([[1.5, -2.25, 0.1], [0.0, 7.0, -1.0]], np.float32)
    collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(tiny_model))
    batch = collate([taught(rows, answers)[row] for row in (0, 1)])
    assert batch["input_ids"].tolist() == [[2, 5, 3], [2, 3, 0]]
    assert batch["labels"].dtype == torch.float32
    np.testing.assert_array_equal(batch["labels"].numpy(), np.column_stack([[2, 0], answers]))


@pytest.fixture
def contrary(tiny_run: Path, tmp_path: Path) -> Path:
    """A teacher that calls food what is a tool, and the other way round."""
    model = Path(shutil.copytree(tiny_run / "merge/model", tmp_path / "contrary"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"id2label": {"0": "animal", "1": "tool", "2": "food"}}))
    return model


def student_of(recipe: Path, teacher: Path, *more: str) -> Any:
    return load_recipe(
        recipe,
        [f"distill.teacher={teacher}", "distill.weight=1", "distill.student_layers=1", "train.epochs=4", *more],
    ).recipe


def test_a_student_does_as_its_teacher_says(
    contrary: Path, tiny_recipe: Path, tiny_run: Path, tmp_path: Path, context: Callable[..., Context]
) -> None:
    asked = context(student_of(tiny_recipe, contrary), data=tiny_run / "data")
    summary = train.run(asked).written()
    assert summary["teacher"]["source"] == str(contrary)
    assert summary["teacher"]["training_accuracy"] == pytest.approx(1 / 3, abs=0.05)
    assert sorted(path.name for path in asked.work.iterdir()) == [
        "base.json",
        "labels.json",
        "model",
        "target.json",
        "teacher.json",
        "tokenizer",
    ]
    student = load_tuned(asked.recipe, LABELS, asked.work)
    assert student.config.num_hidden_layers == 1
    rows = read_rows(tiny_run / "data/test.parquet")
    logits, _ = torch_logits(student, AutoTokenizer.from_pretrained(contrary), rows, 24, lambda _: None)
    swapped = np.array([0, 2, 1])[rows.labels]
    assert (logits.argmax(axis=-1) == swapped).mean() > 0.9
    # And the evaluation says what the teacher is worth, if it is still the same.
    work = tmp_path / "evaluated"
    work.mkdir()
    place = Context(asked.recipe, work, {"data": tiny_run / "data", "train": asked.work}, Quiet())
    told = evaluate.run(place).written()
    compressed = json.loads((work / "evaluation.json").read_text())["compressed"]
    assert list(compressed) == ["teacher"]
    assert compressed["teacher"]["metrics"]["accuracy"] == told["teacher"]
    assert compressed["teacher"]["difference"]["accuracy"]["value"] == pytest.approx(
        told["tuned"]["value"] - told["teacher"]["value"]
    )
    (contrary / "config.json").write_text((contrary / "config.json").read_text() + "\n")
    with pytest.raises(InputError, match=r"^distill.teacher: .*/contrary has changed since training"):
        evaluate.run(place)


def test_an_interrupted_run_does_not_ask_again(
    contrary: Path,
    tiny_recipe: Path,
    tiny_run: Path,
    context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = context(student_of(tiny_recipe, contrary))
    rows = read_rows(tiny_run / "data/train.parquet")
    first, told = ask_teacher(asked.recipe, rows, LABELS, asked.work, asked.report)
    assert train.worth_keeping(asked.work) == {ANSWERS}
    monkeypatch.setattr(distillation, "open_teacher", lambda _: pytest.fail("asked again"))
    again, told_again = ask_teacher(asked.recipe, rows, LABELS, asked.work, asked.report)
    np.testing.assert_array_equal(first, again)
    assert told == told_again
    monkeypatch.undo()
    # Answers that were half saved, or saved for other rows, are not used.
    for content in (b"", (asked.work / ANSWERS).read_bytes()[:200]):
        (asked.work / ANSWERS).write_bytes(content)
        np.testing.assert_array_equal(ask_teacher(asked.recipe, rows, LABELS, asked.work, asked.report)[0], first)
    assert len(ask_teacher(asked.recipe, rows.take(np.arange(7)), LABELS, asked.work, asked.report)[0]) == 7


def test_another_teacher_redoes_the_training(contrary: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    from training.pipeline.pipeline import run_stage
    from training.pipeline.run_dir import RunDir

    recipe = student_of(tiny_recipe, contrary, "train.epochs=0.1")
    with RunDir.open(tmp_path / "runs", recipe.name) as run:
        run_stage("data", recipe, run, Quiet())
        assert run_stage("train", recipe, run, Quiet()).redone
        assert not run_stage("train", recipe, run, Quiet()).redone
        (contrary / "config.json").write_text((contrary / "config.json").read_text() + "\n")
        assert run_stage("train", recipe, run, Quiet()).redone
