"""Contents of an image, and the engine that builds it; tests/containers builds and runs one."""

import json
import stat
from pathlib import Path

import bentoml
import pytest

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.manifest import open_bundle
from rollout.image.bento_image import build_image, find_engine, requirements, write_context


def programs(directory: Path, monkeypatch: pytest.MonkeyPatch, **exit_codes: int) -> Path:
    """Write these engines, and make them the only programs on the path.

    Each logs its arguments to the returned file and ends with its exit code.
    """
    for name, code in exit_codes.items():
        program = directory / name
        program.write_text(f'#!/bin/sh\necho "$0 $*" >> {directory}/asked\necho building >&2\nexit {code}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return directory / "asked"


def test_options_are_left_out_and_every_package_is_pinned() -> None:
    text = (
        "--index-url https://example.invalid\n\n# by hand\na==1.0\nb==2.0 ; python_version < '3.12'\nc[d]==3  # why\n"
    )
    assert requirements(text) == ["a==1.0", "b==2.0 ; python_version < '3.12'", "c[d]==3"]


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a>=1",
        "a==1.*",
        "a ; python_version == '3.11'",
        "a>=1 ; python_version == '3.11'",
        "a @ https://example.invalid/a-1.0.tar.gz#==1",
        "git+https://example.invalid/a",
        "a == one",
    ],
)
def test_a_package_without_a_version_is_named(line: str) -> None:
    with pytest.raises(BentuneError, match="do not pin"):
        requirements(f"ok==1\n{line}\n")


def test_the_context_has_the_bento_the_model_and_nothing_else(tiny_tag: str, tiny_bundle: Path, tmp_path: Path) -> None:
    bento = Path(bentoml.bentos.get(tiny_tag).path)
    write_context(tmp_path, bento, open_bundle(tiny_bundle))
    name, version = tiny_tag.split(":")
    assert {path.name for path in tmp_path.iterdir()} == {
        "serving.Dockerfile",
        "model.Dockerfile",
        "requirements.txt",
        "bento",
        "models",
    }
    assert (tmp_path / "models" / name / "latest").read_text() == version
    assert open_bundle(tmp_path / "models" / name / version).digest == open_bundle(tiny_bundle).digest
    assert {path.name for path in (tmp_path / "bento").iterdir()} == {"bento.yaml", "src", "apis", "README.md"}
    assert "onnxruntime==" in (tmp_path / "requirements.txt").read_text()
    assert "index-url" not in (tmp_path / "requirements.txt").read_text()
    assert all(path.stat().st_mode & stat.S_IROTH for path in tmp_path.rglob("*")), "the image's user is another"


def test_the_first_engine_that_answers_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, docker=1, podman=0, buildah=0)
    assert find_engine() == "podman", "a docker client without its daemon is no engine"
    assert find_engine("buildah") == "buildah"


def test_without_an_engine_it_says_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, docker=1)
    with pytest.raises(InputError, match="tried docker, podman, buildah"):
        find_engine()
    with pytest.raises(InputError, match="tried podman;"):
        find_engine("podman")


def test_a_build_that_fails_shows_the_end_of_what_was_printed(
    tiny_tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = programs(tmp_path, monkeypatch, podman=4)
    bento, lines = bentoml.bentos.get(tiny_tag), list[str]()
    with pytest.raises(BentuneError, match="exit code 4; the end of it:\nbuilding"):
        build_image(bento, "a/b:1", engine="podman", base="some:base", revision="f00", tell=lines.append)
    assert lines == ["building"]
    arguments = asked.read_text()
    assert "build --tag a/b:1 --build-arg BASE=some:base" in arguments
    assert f"--label org.opencontainers.image.title={tiny_tag.split(':', maxsplit=1)[0]}" in arguments
    assert "--layers --format oci" in arguments


def test_the_labels_are_the_manifests(
    tiny_tag: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = programs(tmp_path, monkeypatch, docker=0)
    built = build_image(bentoml.bentos.get(tiny_tag), "a/b:1", engine="docker", revision="f00", tell=lambda _: None)
    assert (built.name, built.engine, built.bento, built.model) == ("a/b:1", "docker", tiny_tag, tiny_tag)
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    arguments = asked.read_text()
    for label, value in [
        ("org.opencontainers.image.version", manifest["version"]),
        ("org.opencontainers.image.revision", "f00"),
        ("bentune.bento", tiny_tag),
        ("bentune.digest", open_bundle(tiny_bundle).digest),
    ]:
        assert f"--label {label}={value}" in arguments
    assert "--layers" not in arguments, "docker knows no such option"
