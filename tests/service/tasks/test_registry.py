"""A bundle is opened by the task that its manifest names, and a task that is not served is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from bentune.bundle.errors import BundleError
from bentune.bundle.manifest import open_bundle
from service.tasks.registry import TASKS, task_class, task_of


def test_tasks_have_the_names_of_the_hub() -> None:
    assert {"text-classification", "image-classification"} <= TASKS.keys()
    assert all(task_class(name) is task and task.name == name for name, task in TASKS.items())


def test_each_bundle_has_the_task_of_its_manifest(tiny_bundle: Path, image_bundle: Path) -> None:
    for root in (tiny_bundle, image_bundle):
        bundle = open_bundle(root)
        assert type(task_of(bundle)) is TASKS[bundle.manifest.task]


def test_a_task_that_is_not_served_is_named(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    future = replace(bundle, manifest=bundle.manifest.model_copy(update={"task": "token-sorting"}))
    said = "the task 'token-sorting' is not served by this version, which has text-classification, "
    with pytest.raises(BundleError, match=said):
        task_of(future)


def test_the_settings_of_another_task_are_refused(tiny_bundle: Path, image_bundle: Path) -> None:
    texts, images = open_bundle(tiny_bundle), open_bundle(image_bundle)
    with pytest.raises(BundleError, match="text-classification takes texts"):
        task_of(replace(texts, processor=images.processor))
    with pytest.raises(BundleError, match="image-classification takes images"):
        task_of(replace(images, processor=texts.processor))
