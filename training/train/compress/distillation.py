"""Distillation: a teacher's logits for the training rows, computed once, and the loss that includes them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional

from bentune.bundle.arrays import Logits
from bentune.bundle.files import atomic_write, write_json
from training.pipeline.fingerprints import teacher_digest
from training.pipeline.layout import TrainFiles
from training.pipeline.results import DistilledFrom
from training.pipeline.stage import Reporter
from training.recipe.compression import DistillSettings
from training.recipe.recipe import Recipe
from training.tasks.rows import Rows
from training.tasks.targets.losses import Loss
from training.train.compress.teacher import open_teacher
from training.train.fit.rows import TrainingRows

ANSWERS = "teacher_logits.npy"


class DistillationLoss:
    """Loss of Hinton et al. 2015 (https://arxiv.org/abs/1503.02531), section 2, as a mean over the batch.

    weight * T^2 * KL(teacher / T || student / T) + (1 - weight) * the loss of the labels. `taught` makes the training
    rows. Rows without teacher logits, as in the validation set, have the loss of the labels alone.
    """

    def __init__(self, settings: DistillSettings, of_labels: Loss) -> None:
        self.temperature = settings.temperature
        self.weight = settings.weight
        self.of_labels = of_labels

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Compute the loss from logits, float [rows, labels].

        Labels are int64 [rows], or float32 [rows, 1 + labels] for rows of `taught`.
        """
        if labels.dim() == 1:
            return self.of_labels(logits, labels, inputs)
        gold, teacher = labels[:, 0].long(), labels[:, 1:]
        divergence = functional.kl_div(
            functional.log_softmax(logits.float() / self.temperature, dim=-1),
            functional.log_softmax(teacher / self.temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        # The gradients of the soft targets shrink with the square of the temperature.
        soft = self.temperature**2 * divergence
        return self.weight * soft + (1 - self.weight) * self.of_labels(logits, gold, inputs)


def taught(dataset: Dataset, answers: Logits) -> Dataset:
    """Replace `labels` by the gold label's number, then the teacher's logits.

    The new `labels` are float32 [rows, 1 + labels]. They are in one column, because Trainer passes only labels and the
    model's inputs to the loss.
    """
    # A float32 holds every whole number up to 2^24.
    both = np.column_stack([np.asarray(dataset["labels"], dtype=np.float32), answers.astype(np.float32)])
    return dataset.remove_columns("labels").add_column("labels", list(both))


def ask_teacher(
    recipe: Recipe, rows: Rows | TrainingRows, labels: list[str], work: Path, report: Reporter
) -> tuple[Logits, DistilledFrom]:
    """Compute the teacher's logits for the training rows, and their summary.

    The logits are float32 [rows, labels]. A resumed run reads them from `work`. Writes teacher.json. Raises InputError
    as `open_teacher` does, and when the teacher lacks a label.
    """
    if recipe.distill is None:
        raise ValueError("the recipe has no `distill`")
    answers = _answers(work / ANSWERS, (len(rows), len(labels)))
    if answers is None:
        teacher = open_teacher(recipe)
        with report.task("computing the teacher's logits", len(rows)) as advance:
            answers = np.concatenate([teacher.logits(part, labels, advance) for part in rows.parts()])
        with atomic_write(work / ANSWERS) as file:
            np.save(file, answers, allow_pickle=False)
    accuracy = float((answers.argmax(axis=-1) == rows.labels).mean())
    report.say(f"distilling from {recipe.distill.teacher}: its accuracy on the training rows is {accuracy:.1%}")
    asked = DistilledFrom(
        source=recipe.distill.teacher, sha256=teacher_digest(recipe.distill.teacher), training_accuracy=accuracy
    )
    write_json(TrainFiles(work).teacher, asked.model_dump(include={"source", "sha256"}))
    return answers, asked


def _answers(file: Path, shape: tuple[int, int]) -> Logits | None:
    """Load the logits of an interrupted run; None where they do not fit these rows."""
    try:
        saved: Logits = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return saved if saved.shape == shape and saved.dtype == np.float32 and np.isfinite(saved).all() else None
