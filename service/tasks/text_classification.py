"""Task `text-classification`: texts or pairs of texts, and one label or any number of them."""

from typing import ClassVar

from service.tasks.text import TextTask


class TextClassification(TextTask):
    """Classifier of texts and pairs."""

    name: ClassVar = "text-classification"
    summary: ClassVar = "Classify texts or pairs of texts, in the shapes of text-embeddings-inference."
