"""Which of transformers' classes a classifier is of, told by its config alone: one of texts, or one of images."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from bentune.bundle.processor import IMAGES

MODELS: dict[str, Any] = {
    "text-classification": AutoModelForSequenceClassification,
    IMAGES: AutoModelForImageClassification,
}


def takes_images(config: PretrainedConfig) -> bool:
    """Whether a model of this config classifies images."""
    return type(config) in AutoModelForImageClassification._model_mapping


def load_classifier(directory: Path) -> PreTrainedModel:
    """A classifier that a stage saved, in float32."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory)
    task = IMAGES if takes_images(config) else "text-classification"
    model: PreTrainedModel = MODELS[task].from_pretrained(
        directory, config=config, use_safetensors=True, dtype=torch.float32
    )
    return model
