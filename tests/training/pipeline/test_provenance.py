"""Code that a model was made with: the commit where there is one, else the version."""

from pathlib import Path

import pytest

from training.pipeline import provenance


def test_without_git_the_revision_is_the_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.code_revision().startswith("bentune ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_revision().startswith("bentune ")


def test_the_versions_are_those_of_the_packages_that_decide() -> None:
    assert {"python", "torch", "transformers", "onnxruntime"} <= provenance.tool_versions().keys()
