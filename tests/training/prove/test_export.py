"""Export: an ONNX file with the merged model's answers, its labels, and the tokenizer that serving reads."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bentune.bundle.errors import BentuneError
from bentune.bundle.files import sha256_file
from bentune.bundle.processor import ProcessorSettings
from training.prove import export
from training.prove.verify import served
from training.recipe.file import load_recipe
from training.tasks.logits import torch_logits
from training.tasks.rows import read_rows
from training.tasks.saved import processor_in, target_in
from training.tasks.text_classification import TextClassification


@pytest.fixture
def asked(lora_run: Path, lora_recipe: Path, context: Callable[..., Any]) -> Any:
    return context(load_recipe(lora_recipe).recipe, merge=lora_run / "merge")


def test_what_is_written(asked: Any, lora_run: Path) -> None:
    summary = export.run(asked).written()
    files = sorted(path.relative_to(asked.work).as_posix() for path in asked.work.rglob("*") if path.is_file())
    assert files == ["config.json", "model/fp32.onnx", "processor/settings.json", "processor/tokenizer.json"]
    file = asked.work / "model/fp32.onnx"
    assert summary == {"onnx_sha256": sha256_file(file), "onnx_bytes": file.stat().st_size}
    settings = ProcessorSettings.model_validate_json((asked.work / "processor/settings.json").read_bytes())
    assert settings == ProcessorSettings(
        pad_id=0, pad_type_id=0, padding_side="right", truncation_side="right", unknown_id=1
    )
    assert json.loads((asked.work / "config.json").read_text())["id2label"] == {"0": "animal", "1": "food", "2": "tool"}
    tokenizer = json.loads((asked.work / "processor/tokenizer.json").read_text())
    merged = json.loads((lora_run / "merge/model/tokenizer.json").read_text())
    assert tokenizer["model"] == merged["model"]
    assert tokenizer["normalizer"] == merged["normalizer"]


def test_rows_and_tokens_are_free_and_answers_are_those_of_torch(asked: Any, lora_run: Path) -> None:
    export.run(asked)
    graph = onnx.load(asked.work / "model/fp32.onnx").graph
    shapes = {
        node.name: [size.dim_param or size.dim_value for size in node.type.tensor_type.shape.dim]
        for node in graph.input
    }
    assert shapes.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(isinstance(size, str) for shape in shapes.values() for size in shape)
    rows = read_rows(lora_run / "data/test.parquet")
    model = AutoModelForSequenceClassification.from_pretrained(lora_run / "merge/model")
    tokenizer = AutoTokenizer.from_pretrained(lora_run / "merge/model")
    expected, _ = torch_logits(model, tokenizer, rows, 24, lambda _: None)
    predictor = served(asked.work, asked.recipe, target_in(lora_run / "data"))
    tokens = [predictor.task.encoder.encode(text, None, truncate=True) for text in rows.texts]
    assert np.abs(predictor.logits(tokens) - expected).max() < 1e-4
    assert np.abs(predictor.logits(tokens[:1]) - expected[:1]).max() < 1e-4


def test_sides_and_padding_are_those_of_the_tokenizer(asked: Any, lora_run: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(
        lora_run / "merge/model", padding_side="left", truncation_side="left", unknown_id=1
    )
    tokenizer.pad_token = "[MASK]"
    tokenizer.save_pretrained(tmp_path / "other")
    (tmp_path / "processor").mkdir()
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported/tokenizer.json").write_text("{}")
    TextClassification().write_processor(processor_in(tmp_path / "other"), tmp_path / "exported", tmp_path)
    written = ProcessorSettings.model_validate_json((tmp_path / "processor/settings.json").read_bytes())
    assert written == ProcessorSettings(
        pad_id=4, pad_type_id=0, padding_side="left", truncation_side="left", unknown_id=1
    )


def test_an_exporter_that_fails_is_named(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no symbolic for aten::odd")

    monkeypatch.setattr(export, "main_export", fail)
    with pytest.raises(
        BentuneError, match=r"export: Optimum could not export .*merge/model: RuntimeError: no symbolic"
    ):
        export.run(asked)


def test_an_error_of_the_system_stays_one(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(export, "main_export", fail)
    with pytest.raises(OSError, match="Input/output error"):
        export.run(asked)


def test_code_in_the_merged_directory_is_not_run(asked: Any, lora_run: Path, tmp_path: Path, context: Any) -> None:
    import shutil

    model = Path(shutil.copytree(lora_run / "merge", tmp_path / "merge")) / "model"
    (model / "custom.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'hacked')!r}).touch()\n")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "custom.X", "AutoModelForSequenceClassification": "custom.X"}
    (model / "config.json").write_text(json.dumps(config))
    export.run(context(asked.recipe, merge=model.parent))
    assert not (tmp_path / "hacked").exists()
