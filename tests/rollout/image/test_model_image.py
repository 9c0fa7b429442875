"""The image of a model: the same bytes each time, what the init container needs, and a registry takes it."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import require
from registry import registry as serving

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.manifest import Bundle, open_bundle
from rollout.image.model_image import find_busybox, is_static, write_model_image
from rollout.image.push import push_model
from rollout.server.server import free_port


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def busybox() -> Path:
    return Path(require("busybox"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The host and port of a real registry."""
    with serving(tmp_path) as address:
        yield address


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs/sha256" / digest.removeprefix("sha256:")


def test_it_holds_the_store_and_what_copies_it(bundle: Bundle, busybox: Path, tmp_path: Path) -> None:
    digest = write_model_image(bundle, tmp_path / "image", "1")
    (index,) = json.loads((tmp_path / "image/index.json").read_text())["manifests"]
    assert index["digest"] == digest
    manifest = json.loads(blob(tmp_path / "image", digest).read_text())
    config = json.loads(blob(tmp_path / "image", manifest["config"]["digest"]).read_text())
    assert config["config"]["User"] == "1034:1034"
    assert config["config"]["Labels"]["bentune.content"] == bundle.content
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    root = tmp_path / "root"
    for layer in manifest["layers"]:
        content = blob(tmp_path / "image", layer["digest"]).read_bytes()
        assert len(content) == layer["size"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer["digest"]
        with tarfile.open(blob(tmp_path / "image", layer["digest"])) as tar:
            assert {(one.uid, one.gid, one.mtime, one.uname) for one in tar} == {(0, 0, 0, "")}
            assert all(one.mode in {0o644, 0o755, 0o777} for one in tar)
            tar.extractall(root, filter="tar")
    # The init container's own command, with nothing but what is in the image.
    (tmp_path / "bentoml").mkdir()
    copy = subprocess.run([root / "bin/cp", "-R", root / "models", f"{tmp_path}/bentoml/"], env={}, check=False)
    assert copy.returncode == 0
    store = tmp_path / "bentoml/models" / bundle.manifest.name
    assert (store / "latest").read_text() == bundle.manifest.version
    assert open_bundle(store / bundle.manifest.version).digest == bundle.digest


def test_only_the_layer_of_the_model_changes_from_version_to_version(
    bundle: Bundle, busybox: Path, tmp_path: Path
) -> None:
    first = write_model_image(bundle, tmp_path / "first", "1")
    # As another machine has it: other times, another owner's rights.
    shutil.copytree(bundle.root, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert write_model_image(open_bundle(tmp_path / "copy"), tmp_path / "second", "1") == first
    from bentune.bundle.manifest import seal

    seal(tmp_path / "copy", bundle.manifest.model_copy(update={"version": "next"}))
    other = write_model_image(open_bundle(tmp_path / "copy"), tmp_path / "third", "next")
    layers = [
        [layer["digest"] for layer in json.loads(blob(tmp_path / place, digest).read_text())["layers"]]
        for place, digest in (("first", first), ("third", other))
    ]
    assert layers[0][0] == layers[1][0]
    assert layers[0][1] != layers[1][1]


def test_a_program_with_libraries_is_no_static_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_static(Path("/bin/sh"))
    (tmp_path / "busybox").write_text("#!/bin/sh\n")
    (tmp_path / "busybox").chmod(0o755)
    assert not is_static(tmp_path / "busybox")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs a static busybox, for `cp`; found .*/busybox: install"):
        find_busybox()
    (tmp_path / "busybox").unlink()
    with pytest.raises(InputError, match="found none"):
        find_busybox()


def test_a_registry_takes_it_without_an_engine(bundle: Bundle, busybox: Path, registry: str, tmp_path: Path) -> None:
    said: list[str] = []
    name = push_model(bundle, f"{registry}/news/bundle", insecure=True, tell=said.append)
    repository, _, digest = name.partition("@")
    assert repository == f"{registry}/news/bundle:{bundle.manifest.version}"
    shown = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/news/bundle@{digest}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(shown.stdout)
    assert found["Digest"] == digest
    assert found["Labels"]["bentune.digest"] == bundle.digest
    # The same again is the same image: a release of it changes nothing.
    assert push_model(bundle, f"{registry}/news/bundle", insecure=True, tell=said.append) == name


def test_what_cannot_be_pushed_says_why(bundle: Bundle, busybox: Path) -> None:
    require("skopeo")
    for wrong in ("news", "http://host/news", "host/news:1", "host/news@sha256:1", "--help/x"):
        with pytest.raises(InputError, match=r"write REGISTRY/NAME, without a tag"):
            push_model(bundle, wrong, tell=print)
    with pytest.raises(BentuneError, match="`skopeo copy` failed with exit code 1"):
        push_model(bundle, f"127.0.0.1:{free_port()}/news", insecure=True, tell=lambda _: None)
