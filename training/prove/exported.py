"""The service's own task on the exported files, so that the served code is verified."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from bentune.bundle.processor import InputSettings
from bentune.bundle.targets.target import Target
from service.tasks.registry import task_class
from service.tasks.task import Encoded, Encoder
from service.tasks.task import Task as ServedTask
from training.pipeline.layout import ExportFiles
from training.recipe.recipe import Recipe
from training.tasks.registry import task_of
from training.tasks.rows import Rows

SETTINGS_READER: TypeAdapter[InputSettings] = TypeAdapter(InputSettings)


def served_task(exported: Path, recipe: Recipe, target: Target) -> ServedTask:
    """Open the service's task on the exported processor."""
    task, files = task_of(recipe), ExportFiles(exported)
    return task_class(recipe.task).open(
        files.processor,
        SETTINGS_READER.validate_json(files.settings.read_bytes()),
        task.limits(exported, recipe.max_tokens),
        target,
        task.columns(recipe.data.columns),
    )


def encoded(rows: Rows, encoder: Encoder) -> list[Encoded]:
    """Encode every row as the service does; too long rows are truncated."""
    pairs = rows.pairs if rows.pairs is not None else [None] * len(rows)
    return [encoder.encode(*texts, truncate=True) for texts in zip(rows.texts, pairs, strict=True)]


def ids_of(inputs: Sequence[Encoded]) -> list[list[int]]:
    """Return the numbers that identify each input in the parity chain."""
    return [one.identity for one in inputs]
