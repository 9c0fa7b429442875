"""Registry of the tasks that this version serves."""

from bentune.bundle.errors import BundleError
from bentune.bundle.manifest import Bundle
from service.tasks.image_classification import ImageClassification
from service.tasks.task import Task
from service.tasks.text_classification import TextClassification
from service.tasks.text_regression import TextRegression

TASKS: dict[str, type[Task]] = {task.name: task for task in (TextClassification, ImageClassification, TextRegression)}


def task_class(name: str) -> type[Task]:
    """Return the task of this name.

    Raises BundleError for one that this version does not serve.
    """
    if name not in TASKS:
        raise BundleError(f"the task {name!r} is not served by this version, which has {', '.join(TASKS)}")
    return TASKS[name]


def task_of(bundle: Bundle) -> Task:
    """Return the task of a bundle, its processor opened.

    Raises BundleError when it cannot be read.
    """
    manifest = bundle.manifest
    return task_class(manifest.task).open(
        bundle.root / "processor", bundle.processor, manifest.limits, manifest.target, manifest.columns
    )
