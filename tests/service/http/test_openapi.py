"""Uploads and the description on the page; a server answers the rest in test_http.py."""

from pathlib import Path

from bentune.bundle.manifest import open_bundle
from bentune.bundle.targets.one_label import OneLabel
from service.http.openapi import DESCRIBED_LABELS, corrected, description
from service.tasks.image_classification import ImageClassification
from service.tasks.task import Task
from service.tasks.text_classification import TextClassification


def body(task: type[Task]) -> set[str]:
    spec = corrected({"paths": {"/predict": {"post": {}}}}, task.body)
    return set(spec["paths"]["/predict"]["post"]["requestBody"]["content"])


def test_only_a_model_of_images_takes_files() -> None:
    assert body(TextClassification) == {"application/json"}
    assert body(ImageClassification) == {"application/json", "image/*", "multipart/form-data"}


def test_the_description_names_the_model_and_bounds_the_labels(tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    assert description(manifest) == "handmade: text-classification, labels animal, food, tool."
    many = manifest.model_copy(update={"target": OneLabel(labels=[f"label {number}" for number in range(2000)])})
    assert description(many).endswith(f"label {DESCRIBED_LABELS - 1} and {2000 - DESCRIBED_LABELS} more.")
