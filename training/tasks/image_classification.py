"""Task `image-classification`: images in folders of classes, or in a column of a table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bentune.bundle.files import write_json
from bentune.bundle.manifest import Columns, ImageLimits, Limits
from training.pipeline.layout import ExportFiles
from training.recipe.data import ColumnNames, DataSettings
from training.sources.image_files import IMAGES_AT_ONCE, checked_image
from training.sources.raw import Raw, Source
from training.tasks.digest import digest
from training.tasks.task import Input, ReadText, Task

if TYPE_CHECKING:
    from training.recipe.recipe import Recipe
    from training.tasks.image.processor import ImageProcessor
    from training.tasks.image.rows import ImageRows
    from training.tasks.logits import Processor
    from training.tasks.rows import Rows


class ImageClassification(Task):
    """Classifier of images."""

    name: ClassVar = "image-classification"
    noun: ClassVar = "image"
    nouns: ClassVar = "images"
    onnx_task: ClassVar = "image-classification"
    auto_model: ClassVar = "AutoModelForImageClassification"
    rows_at_once: ClassVar = IMAGES_AT_ONCE
    lengths: ClassVar = False
    request: ClassVar = "-F file=@image.png"
    refused: ClassVar[dict[str, str]] = {
        "max_tokens": "an image has the size that its model takes",
        "parent": "versions of an image classifier are not compared yet, so none can continue another",
        "distill": "only text classifiers learn from a teacher",
        "prune": "only text classifiers are pruned",
        "data.multi_label": "an image has one label",
        "data.query": "a query gives no images",
        "data.config": "images are read from a folder of classes or a table of files",
        "data.clean": "its rules are for texts",
        "data.near_duplicates": "only exact duplicates of images are found, by their pixels",
        "data.doubtful_labels": "the quick classifier that judges labels reads texts",
        "data.columns.text": "name the column of the images in data.columns.image",
        "data.columns.text_pair": "an image has no second text",
        "train.augment.copies": "each epoch sees another view of every image: set rotation, crop or flip",
        "train.augment.word_rate": "images have no words",
        "train.augment.word_edits": "images have no words",
        "train.augment.character_rate": "images have no letters",
        "train.augment.character_edits": "images have no letters",
    }

    def sources(self, data: DataSettings, also: Sequence[str] = ()) -> list[Source]:
        """Open folders of classes and tables of files."""
        from training.sources.images import open_image_sources

        return open_image_sources(data, also)

    def source_digests(self, data: DataSettings, also: Sequence[str] = ()) -> list[str]:
        """Return the digest of all images."""
        from training.sources import images

        return images.source_digests(data, also)

    def read(self, raw: Raw, names: ColumnNames, read_text: ReadText) -> Input:
        """Return the image as a data URL, and a digest of its pixels."""
        del names, read_text
        text, content = checked_image(raw.text)
        return Input(text, None, content)

    def as_read(self, recipe: "Recipe") -> "Recipe":
        """Return the recipe with the checks of texts off."""
        near = recipe.data.near_duplicates.model_copy(update={"action": "off"})
        data = recipe.data.model_copy(update={"near_duplicates": near, "doubtful_labels": "off"})
        return recipe.model_copy(update={"data": data})

    def processor(self, recipe: "Recipe") -> "Processor":
        """Load the image processor."""
        from training.tasks.base.load import load_image_processor

        return load_image_processor(recipe)

    def dataset(self, parts: "Iterable[Rows]", processor: Any, max_tokens: int, file: Path) -> "ImageRows":
        """Return images that are decoded on access."""
        from training.tasks.image.rows import ImageRows
        from training.tasks.rows import joined

        del max_tokens, file
        return ImageRows(joined(parts), processor)

    def columns(self, names: ColumnNames) -> Columns:
        """Return the column of the images."""
        return Columns(text=names.image)

    def write_processor(self, processor: "ImageProcessor", exported: Path, directory: Path) -> None:
        """Write the steps from an image to pixel values, and limits.json."""
        del exported
        write_json(ExportFiles(directory).settings, processor.settings)
        write_json(ExportFiles(directory).limits, processor.limits)

    def limits(self, exported: Path, max_tokens: int) -> Limits:
        """Return the most pixels, and the number of tokens of an image."""
        del max_tokens
        return ImageLimits.model_validate_json(ExportFiles(exported).limits.read_bytes())

    def digest(self, processor: "ImageProcessor") -> str:
        """Return the digest of the steps."""
        return digest(processor.settings.model_dump(mode="json"))

    def exported_digest(self, exported: Path) -> str:
        """Return the digest of the stored steps."""
        return digest(json.loads(ExportFiles(exported).settings.read_bytes()))

    def shown(self, rows: "Rows", origins: Sequence[str]) -> "Rows":
        """Return the rows with each image replaced by its origin."""
        return replace(rows, texts=list(origins))
