"""Labels and tokenizers, read back from what the stages wrote."""

import json
import shutil
from pathlib import Path

from training.tasks.saved import config_labels, labels_of, tokenizer_of


def test_labels_are_in_the_order_of_the_logits(tiny_run: Path) -> None:
    assert labels_of(tiny_run / "train") == ["animal", "food", "tool"]
    assert config_labels(tiny_run / "merge/model") == ["animal", "food", "tool"]
    assert config_labels(tiny_run / "export") == ["animal", "food", "tool"]


def test_more_than_ten_labels_are_in_the_order_of_numbers(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "merge/model", tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    names = {str(index): f"label {index}" for index in range(12)}
    config |= {"id2label": dict(sorted(names.items())), "label2id": {name: int(index) for index, name in names.items()}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    assert config_labels(tmp_path / "model") == [f"label {index}" for index in range(12)]


def test_the_tokenizer_is_the_fast_one(tiny_run: Path) -> None:
    assert tokenizer_of(tiny_run / "train").is_fast
