"""Larger models that a smaller one is compared with on the test set: its teacher, and itself before pruning."""

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from bentune.bundle.arrays import Logits
from bentune.bundle.errors import InputError
from training.pipeline.fingerprints import TEACHER_KEY, teacher_digest
from training.pipeline.layout import TrainFiles
from training.pipeline.results import TeacherFiles
from training.pipeline.stage import Reporter
from training.recipe.recipe import Recipe
from training.tasks.logits import logits_of
from training.tasks.rows import Rows
from training.tasks.saved import tokenizer_of
from training.train.compress.teacher import open_teacher


def larger_models(recipe: Recipe, trained: Path, rows: Rows, labels: list[str], report: Reporter) -> dict[str, Logits]:
    """Compute the logits of `teacher` and `dense` where the recipe has them.

    Logits are float32 [rows, labels]. Raises InputError when the teacher has changed since training.
    """
    found: dict[str, Logits] = {}
    if recipe.distill is not None:
        asked = TeacherFiles.model_validate_json(TrainFiles(trained).teacher.read_bytes())
        if teacher_digest(recipe.distill.teacher) != asked.sha256:
            raise InputError(
                f"{TEACHER_KEY}: {recipe.distill.teacher} has changed since training: run `bentune train` again, or "
                "restore it"
            )
        with report.task("evaluating the teacher", len(rows)) as advance:
            found["teacher"] = open_teacher(recipe).logits(rows, labels, advance)
    if recipe.prune is not None:
        dense = AutoModelForSequenceClassification.from_pretrained(
            TrainFiles(trained).dense, use_safetensors=True, dtype=torch.float32, local_files_only=True
        )
        with report.task("evaluating the model before pruning", len(rows)) as advance:
            found["dense"] = logits_of(dense, tokenizer_of(trained), rows, recipe.max_tokens, advance)
    return found
