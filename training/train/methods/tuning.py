"""The interface of a method: how a base model is made trainable, what is kept of it, and how it comes back."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from training.tasks.base import Base

LoadBase = Callable[[], PreTrainedModel]


class Tuning(Protocol):
    """A method with its settings. `load_base` gives the very weights that training started from, in float32."""

    def prepare(self, base: Base) -> torch.nn.Module:
        """The model to train, made of `base`. Raises InputError where the settings do not fit the model."""

    def save(self, model: Any, directory: Path) -> None:
        """Write what was trained below `directory`, as safetensors."""

    def load(self, load_base: LoadBase, directory: Path) -> PreTrainedModel | PeftModel:
        """The model as it was trained."""

    def merged(self, load_base: LoadBase, directory: Path) -> PreTrainedModel:
        """The trained model as one of the base's kind, float32. Raises ValueError for values that are not finite."""


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of weights."""

    trainable: int
    total: int


def count(model: torch.nn.Module) -> ParameterCount:
    """Trainable weights and all of them."""
    # PEFT keeps the untrained head beside the one that it trains.
    weights = [weight for name, weight in model.named_parameters() if ".original_module." not in name]
    return ParameterCount(
        trainable=sum(_numbers(weight) for weight in weights if weight.requires_grad),
        total=sum(_numbers(weight) for weight in weights),
    )


def _numbers(weight: torch.nn.Parameter) -> int:
    # Two weights of 4 bits share a byte.
    packed = getattr(weight, "quant_state", None)
    return weight.numel() if packed is None else math.prod(packed.shape)


def trained_whole(base: Base) -> list[str]:
    """The head, and what else has no pretrained weights: every method trains all of it."""
    head = {
        name
        for name, module in base.model.named_children()
        if name != base.model.base_model_prefix and any(True for _ in module.parameters())
    }
    return sorted(head | set(base.fresh))


def within(name: str, parts: Collection[str]) -> bool:
    """Whether a weight or module lies in one of these parts of the model."""
    return any(part in parts for part in name.split("."))
