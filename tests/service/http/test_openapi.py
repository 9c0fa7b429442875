"""What the page says of uploads; the rest of it is asked of a server in test_http.py."""

from typing import Any

from service.http.openapi import corrected


def body(**options: Any) -> set[str]:
    spec = corrected({"paths": {"/predict": {"post": {}}}}, **options)
    return set(spec["paths"]["/predict"]["post"]["requestBody"]["content"])


def test_only_a_model_of_images_takes_files() -> None:
    assert body() == {"application/json"}
    assert body(images=True) == {"application/json", "image/*", "multipart/form-data"}
