"""A saved classifier is loaded as what it is, by its config alone."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, ConvNextConfig, DeiTConfig, ResNetConfig, SwinConfig, ViTConfig
from tuning import FAMILIES

from training.tasks.base.classifier import load_classifier, loads
from training.tasks.registry import TASKS


@pytest.mark.parametrize("config", [BertConfig(), *FAMILIES.values()], ids=lambda config: config.model_type)
def test_models_of_texts(config: object) -> None:
    assert loads(config, TASKS["text-classification"])  # type: ignore[arg-type]
    assert not loads(config, TASKS["image-classification"])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ViTConfig, DeiTConfig, SwinConfig, ConvNextConfig, ResNetConfig])
def test_models_of_images(kind: type) -> None:
    assert loads(kind(), TASKS["image-classification"])
    assert not loads(kind(), TASKS["text-classification"])


def test_each_is_loaded_by_its_own_class(lora_run: Path, image_run: Path) -> None:
    for run, name in ((lora_run, "BertForSequenceClassification"), (image_run, "ViTForImageClassification")):
        model = load_classifier(run / "merge/model")
        assert type(model).__name__ == name
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
