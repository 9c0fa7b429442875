"""Task `text-regression`: texts or pairs of texts, and one number a row."""

from typing import ClassVar

from training.recipe.data import DataSettings
from training.tasks.targets.number import NumberTraining
from training.tasks.targets.target import TrainingTarget
from training.tasks.text_task import TextTask


class TextRegression(TextTask):
    """Regression on texts and pairs."""

    name: ClassVar = "text-regression"
    refused: ClassVar[dict[str, str]] = TextTask.refused | {
        "data.labels": "a number has no name",
        "data.multi_label": "a row has one number",
        "data.label_separator": "a row has one number",
        "data.doubtful_labels": "the quick classifier that judges labels requires classes",
        "distill": "only classifiers learn from a teacher",
        "prune": "only classifiers are pruned",
    }

    def target(self, data: DataSettings) -> TrainingTarget:
        """Return the number."""
        return NumberTraining(data)
