"""Task `text-regression`: a text or a pair of texts, and one number."""

from typing import ClassVar

from service.tasks.text import TextTask


class TextRegression(TextTask):
    """Regression on texts and pairs."""

    name: ClassVar = "text-regression"
    summary: ClassVar = "Predict the number of texts or pairs of texts, in the shapes of text-embeddings-inference."
