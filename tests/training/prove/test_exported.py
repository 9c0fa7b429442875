"""Export writes for the service exactly what the service reads, for texts and for images."""

from pathlib import Path

import numpy as np

from bentune.bundle.manifest import ImageLimits, Limits
from service.tasks.image_classification import ImageClassification
from service.tasks.text_classification import TextClassification
from training.prove.exported import encoded, ids_of, served_task
from training.recipe.file import load_recipe
from training.tasks.registry import task_of
from training.tasks.rows import read_rows
from training.tasks.saved import processor_in, target_in


def test_texts(lora_recipe: Path, lora_run: Path) -> None:
    recipe, exported = load_recipe(lora_recipe).recipe, lora_run / "export"
    served, rows = (
        served_task(exported, recipe, target_in(lora_run / "data")),
        read_rows(lora_run / "data/test.parquet"),
    )
    assert isinstance(served, TextClassification)
    assert served.target.labels == ["animal", "food", "tool"]
    task = task_of(recipe)
    assert task.limits(exported, recipe.max_tokens) == Limits(max_tokens=24)
    tokenizer = processor_in(lora_run / "merge/model")
    assert task.exported_digest(exported) == task.digest(tokenizer)
    assert ids_of(encoded(rows, served.encoder)) == rows.encode(tokenizer, 24)["input_ids"]  # type: ignore[arg-type]


def test_images(image_recipe_file: Path, image_run: Path) -> None:
    recipe, exported = load_recipe(image_recipe_file).recipe, image_run / "export"
    served = served_task(exported, recipe, target_in(image_run / "data"))
    rows = read_rows(image_run / "data/test.parquet")
    assert isinstance(served, ImageClassification)
    task = task_of(recipe)
    assert task.limits(exported, recipe.max_tokens) == ImageLimits(max_tokens=5, max_pixels=25_000_000)
    processor = processor_in(image_run / "merge/model")
    assert task.exported_digest(exported) == task.digest(processor)
    given = ids_of(encoded(rows, served.encoder))
    assert given == ids_of(processor.encode(rows.texts))  # type: ignore[union-attr]
    assert len({one[0] for one in given}) == len(rows)  # no two rows have the same identity
    changed = rows.take(np.arange(len(rows))[::-1])
    assert ids_of(encoded(changed, served.encoder)) == given[::-1]
