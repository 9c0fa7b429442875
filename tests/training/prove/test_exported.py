"""What export writes for the service is what the service reads, of texts and of images."""

from pathlib import Path

import numpy as np

from bentune.bundle.manifest import ImageLimits, Limits
from service.tasks.images import ImageEncoder
from service.tasks.tokenizer import TextTokenizer
from training.prove.exported import encoded, exported_digest, ids_of, limits_of, processor_digest, served_encoder
from training.recipe.file import load_recipe
from training.tasks.rows import read_rows
from training.tasks.saved import processor_in


def test_texts(lora_recipe: Path, lora_run: Path) -> None:
    recipe, exported = load_recipe(lora_recipe).recipe, lora_run / "export"
    encoder, rows = served_encoder(exported, recipe), read_rows(lora_run / "data/test.parquet")
    assert isinstance(encoder, TextTokenizer)
    assert limits_of(exported, recipe) == Limits(max_tokens=24)
    tokenizer = processor_in(lora_run / "merge/model")
    assert exported_digest(exported, recipe) == processor_digest(tokenizer)
    assert ids_of(encoded(rows, encoder)) == rows.encode(tokenizer, 24)["input_ids"]  # type: ignore[arg-type]


def test_images(image_recipe_file: Path, image_run: Path) -> None:
    recipe, exported = load_recipe(image_recipe_file).recipe, image_run / "export"
    encoder, rows = served_encoder(exported, recipe), read_rows(image_run / "data/test.parquet")
    assert isinstance(encoder, ImageEncoder)
    assert limits_of(exported, recipe) == ImageLimits(max_tokens=5, max_pixels=25_000_000)
    processor = processor_in(image_run / "merge/model")
    assert exported_digest(exported, recipe) == processor_digest(processor)
    given = ids_of(encoded(rows, encoder))
    assert given == ids_of(processor.encode(rows.texts))  # type: ignore[union-attr]
    assert len({one[0] for one in given}) == len(rows)  # no two rows have the same stand-in
    changed = rows.take(np.arange(len(rows))[::-1])
    assert ids_of(encoded(changed, encoder)) == given[::-1]
