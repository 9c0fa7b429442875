"""The tiny run that other tests build on did learn, and made what it should."""

import json
from pathlib import Path

from bentune.bundle.manifest import open_bundle


def test_it_learned(tiny_run: Path) -> None:
    evaluation = json.loads((tiny_run / "evaluate/evaluation.json").read_text())
    assert evaluation["tuned"]["accuracy"]["value"] >= 0.9 > evaluation["base"]["accuracy"]["value"]


def test_bundle_opens(trained_bundle: Path) -> None:
    assert open_bundle(trained_bundle).manifest.labels == ["animal", "food", "tool"]
