"""Bundles to compare: the tiny one, a worse one of the same rows, and rows that neither has seen."""

import json
import shutil
from pathlib import Path

from tiny import sentences

from bentune.bundle.manifest import open_bundle, seal


def worse(bundle: Path, place: Path) -> Path:
    """Copy a bundle and change the places of its labels.

    The copy is wrong in what the original is right.
    """
    shutil.copytree(bundle, place)
    manifest = open_bundle(place).manifest
    turned = manifest.target.model_copy(update={"labels": manifest.labels[1:] + manifest.labels[:1]})
    seal(place, manifest.model_copy(update={"target": turned}))
    return place


def write_rows(path: Path, count: int, seed: int = 77) -> Path:
    """JSON lines with a column to slice by; sentences that no tiny run was trained on."""
    rows = [
        {"text": text, "label": label, "set": "fresh" if number % 3 else "reference"}
        for number, (text, label) in enumerate(sentences(count, seed))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
