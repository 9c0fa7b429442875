"""Partial tuning: some weights are trained in place and saved, all other weights stay the base's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from bentune.bundle.errors import BentuneError
from training.tasks.base.load import Base
from training.train.methods.tuning import LoadBase, trained_whole, within

TUNED = Path("tuned/model.safetensors")


class PartialTuning:
    """Base class of the methods that train some of the weights in place."""

    def save(self, model: Any, directory: Path) -> None:
        """Write tuned/: the trained weights, under the base's names."""
        file = directory / TUNED
        file.parent.mkdir()
        trained = {
            name: weight.detach().cpu().contiguous()
            for name, weight in model.named_parameters()
            if weight.requires_grad
        }
        save_file(trained, file, {"format": "pt"})

    def load(self, load_base: LoadBase, directory: Path) -> PreTrainedModel:
        """Load the base and the trained weights into it."""
        model = load_base()
        try:
            unknown = model.load_state_dict(load_file(directory / TUNED), strict=False).unexpected_keys
        except RuntimeError as error:  # weights of another shape
            raise BentuneError(f"{directory / TUNED} does not fit the base model: {error}") from error
        if unknown:
            raise BentuneError(f"{directory / TUNED} does not fit the base model, which has no weight {unknown[0]}")
        return model

    merged = load


def train_only(base: Base, chosen: Callable[[str], bool]) -> torch.nn.Module:
    """Freeze all weights but those `chosen` by name and those of `trained_whole`."""
    whole = trained_whole(base)
    for name, weight in base.model.named_parameters():
        weight.requires_grad_(within(name, whole) or chosen(name))
    model: torch.nn.Module = base.model
    return model
