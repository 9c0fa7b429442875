"""Merging: the same answers without the adapter, labels and tokenizer beside the weights, nothing that is no number."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bentune.bundle.errors import GateError
from bentune.bundle.files import sha256_file
from training.prove import merge
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.tasks.logits import torch_logits
from training.tasks.rows import read_rows
from training.tasks.saved import labels_of, tokenizer_of
from training.train.methods import load_tuned


@pytest.fixture(params=["lora", "full"])
def trained(
    request: pytest.FixtureRequest, lora_recipe: Path, tiny_recipe: Path, tmp_path: Path
) -> tuple[Recipe, Path]:
    """A recipe, and a copy of its trained model to break."""
    run: Path = request.getfixturevalue("lora_run" if request.param == "lora" else "tiny_run")
    recipe = load_recipe(lora_recipe if request.param == "lora" else tiny_recipe).recipe
    return recipe, Path(shutil.copytree(run / "train", tmp_path / "train"))


def test_the_merged_model_gives_the_answers_of_the_trained_one(
    trained: tuple[Recipe, Path], tiny_run: Path, context: Callable[..., Any]
) -> None:
    recipe, directory = trained
    asked = context(recipe, train=directory)
    summary = merge.run(asked).written()
    assert summary == {"weights_sha256": sha256_file(asked.work / "model/model.safetensors")}
    weights = load_file(asked.work / "model/model.safetensors")
    assert not any("lora" in name or "modules_to_save" in name or "base_layer" in name for name in weights)
    rows = read_rows(tiny_run / "data/test.parquet")
    tokenizer = tokenizer_of(directory)
    before, ids = torch_logits(load_tuned(recipe, labels_of(directory), directory), tokenizer, rows, 24, lambda _: None)
    merged = AutoModelForSequenceClassification.from_pretrained(asked.work / "model")
    own_tokenizer = AutoTokenizer.from_pretrained(asked.work / "model")
    after, own_ids = torch_logits(merged, own_tokenizer, rows, 24, lambda _: None)
    assert ids == own_ids
    assert np.abs(before - after).max() < 1e-4
    assert np.ptp(before, axis=0).max() > 0.1


def test_labels_and_tokenizer_are_beside_the_weights(trained: tuple[Recipe, Path], context: Callable[..., Any]) -> None:
    recipe, directory = trained
    asked = context(recipe, train=directory)
    merge.run(asked)
    config = json.loads((asked.work / "model/config.json").read_text())
    assert config["id2label"] == {"0": "animal", "1": "food", "2": "tool"}
    assert config["label2id"] == {"animal": 0, "food": 1, "tool": 2}
    saved = json.loads((asked.work / "model/tokenizer.json").read_text())
    assert saved == json.loads((directory / "tokenizer/tokenizer.json").read_text())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_a_failure_of_the_merge(
    value: float, trained: tuple[Recipe, Path], context: Callable[..., Any]
) -> None:
    recipe, directory = trained
    (file,) = directory.glob("*/*model.safetensors")
    weights = load_file(file)
    name = next(name for name in sorted(weights) if "lora_B" in name or "query.weight" in name)
    weights[name][0, 0] = value
    save_file(weights, file, {"format": "pt"})
    asked = context(recipe, train=directory)
    with pytest.raises(GateError, match="^merge: .*lower train.learning_rate") as caught:
        merge.run(asked)
    assert (caught.value.gate, caught.value.exit_code) == ("merge", 1)
    assert list(asked.work.iterdir()) == []


def test_a_head_that_is_no_number_is_found_too(lora_run: Path, lora_recipe: Path, tmp_path: Path, context: Any) -> None:
    """The head is copied and not merged, so PEFT's own check does not see it."""
    directory = Path(shutil.copytree(lora_run / "train", tmp_path / "train"))
    file = directory / "adapter/adapter_model.safetensors"
    weights = load_file(file)
    weights["base_model.model.classifier.bias"] = torch.full((3,), torch.nan)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(GateError, match="merge: classifier.bias holds values that are not finite"):
        merge.run(context(load_recipe(lora_recipe).recipe, train=directory))
