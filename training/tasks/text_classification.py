"""Task `text-classification`: texts or pairs of texts, and one label or any number of them."""

from typing import ClassVar

from training.tasks.text_task import TextTask


class TextClassification(TextTask):
    """Classifier of texts and pairs."""

    name: ClassVar = "text-classification"
