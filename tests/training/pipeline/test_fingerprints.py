"""The digest of a base model's files: it changes with what training reads, and with nothing else."""

import os
from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from training.pipeline.fingerprints import base_files_digest


def make(directory: Path) -> Path:
    directory.mkdir()
    for name in ("model.safetensors", "config.json", "vocab.txt", "spiece.model"):
        (directory / name).write_text(name)
    return directory


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt", "spiece.model"])
def test_each_file_that_training_reads_counts(name: str, tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    before = base_files_digest(str(model))
    (model / name).write_text("other")
    assert base_files_digest(str(model)) != before


def test_nothing_else_counts(tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    before = base_files_digest(str(model))
    (model / "README.md").write_text("a card")
    (model / "pytorch_model.bin").write_text("a pickle")
    (model / "a.json").mkdir()
    os.mkfifo(model / "pipe.txt")
    os.utime(model / "config.json", (1, 1))
    assert base_files_digest(str(model)) == before
    assert base_files_digest(str(make(tmp_path / "copy"))) == before


def test_a_file_with_anothers_name_is_another_file(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    (other / "vocab.txt").rename(other / "merges.txt")
    assert base_files_digest(str(one)) != base_files_digest(str(other))


def test_a_hub_name_has_a_digest_and_a_missing_path_has_none() -> None:
    assert base_files_digest("someone/model") != base_files_digest("someone/other")
    with pytest.raises(InputError, match="model: ./nowhere is not there"):
        base_files_digest("./nowhere")
