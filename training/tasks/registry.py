"""Registry of the tasks that can be trained."""

from typing import TYPE_CHECKING

from training.tasks.image_classification import ImageClassification
from training.tasks.targets.target import TrainingTarget
from training.tasks.task import Task
from training.tasks.text_classification import TextClassification
from training.tasks.text_regression import TextRegression

if TYPE_CHECKING:
    from training.recipe.recipe import Recipe

TASKS: dict[str, Task] = {task.name: task for task in (TextClassification(), ImageClassification(), TextRegression())}


def task_of(recipe: "Recipe") -> Task:
    """Return the recipe's task."""
    return TASKS[recipe.task]


def target_of(recipe: "Recipe") -> TrainingTarget:
    """Return the recipe's target."""
    return task_of(recipe).target(recipe.data)
