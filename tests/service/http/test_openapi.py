"""Uploads on the page; the rest of it is asked of a server in test_http.py."""

from service.http.openapi import corrected
from service.tasks.image_classification import ImageClassification
from service.tasks.task import Task
from service.tasks.text_classification import TextClassification


def body(task: type[Task]) -> set[str]:
    spec = corrected({"paths": {"/predict": {"post": {}}}}, task.body)
    return set(spec["paths"]["/predict"]["post"]["requestBody"]["content"])


def test_only_a_model_of_images_takes_files() -> None:
    assert body(TextClassification) == {"application/json"}
    assert body(ImageClassification) == {"application/json", "image/*", "multipart/form-data"}
