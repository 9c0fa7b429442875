"""Method `full`: tunes every weight."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from training.tasks.base.classifier import load_classifier
from training.tasks.base.load import Base
from training.train.methods.tuning import LoadBase

MODEL = "model"


class Full:
    """Tuning of every weight; the saved model no longer needs its base."""

    def prepare(self, base: Base) -> torch.nn.Module:
        """Return the base's model unchanged."""
        return base.model

    def save(self, model: Any, directory: Path) -> None:
        """Write model/."""
        model.save_pretrained(directory / MODEL, safe_serialization=True)

    def load(self, load_base: LoadBase, directory: Path) -> PreTrainedModel:  # noqa: ARG002
        """Load the saved model."""
        return load_classifier(directory / MODEL)

    merged = load
