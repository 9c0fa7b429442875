"""Pushing with `bentune release --push`: the image of a Bento is in the registry, by its digest."""

import json
from pathlib import Path

from podman import run
from registry import registry

from bentune.bundle.store import find_bundle
from rollout.image.push import push_image


def test_an_image_is_built_pushed_and_named_by_its_digest(podman: None, tiny_tag: str, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        name = push_image(
            tiny_tag,
            f"{address}/news/tiny",
            engine="podman",
            base="python:3.11-slim",
            insecure=True,
            tell=lambda _: None,
        )
        repository, _, digest = name.partition("@")
        assert repository == f"{address}/news/tiny:{tiny_tag.partition(':')[2]}"
        try:
            shown = run("skopeo", "inspect", "--tls-verify=false", f"docker://{address}/news/tiny@{digest}").stdout
        finally:
            run("podman", "rmi", "--force", repository, check=False)
    found = json.loads(shown)
    assert found["Digest"] == digest
    assert found["Labels"]["bentune.digest"] == find_bundle(tiny_tag).digest
