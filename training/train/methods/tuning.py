"""Interface of a fine-tuning method, and the counts and names of weights that all methods use."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from training.tasks.base.load import Base

LoadBase = Callable[[], PreTrainedModel]


class Tuning(Protocol):
    """Fine-tuning method with its settings. `load_base` loads the weights from which training started, in float32."""

    def prepare(self, base: Base) -> torch.nn.Module:
        """Prepare `base` for training.

        Raises InputError where the settings do not fit the model.
        """

    def save(self, model: Any, directory: Path) -> None:
        """Write the trained weights below `directory`, as safetensors."""

    def load(self, load_base: LoadBase, directory: Path) -> PreTrainedModel | PeftModel:
        """Load the model as it was trained."""

    def merged(self, load_base: LoadBase, directory: Path) -> PreTrainedModel:
        """Load the trained model in the base's architecture, float32.

        Raises ValueError unless all weights are finite.
        """


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of trainable weights and of all weights."""

    trainable: int
    total: int


def count(model: torch.nn.Module) -> ParameterCount:
    """Count the model's weights."""
    # PEFT keeps the untrained head beside the trained one.
    weights = [weight for name, weight in model.named_parameters() if ".original_module." not in name]
    return ParameterCount(
        trainable=sum(_numbers(weight) for weight in weights if weight.requires_grad),
        total=sum(_numbers(weight) for weight in weights),
    )


def _numbers(weight: torch.nn.Parameter) -> int:
    # Two 4-bit weights share a byte.
    packed = getattr(weight, "quant_state", None)
    return weight.numel() if packed is None else math.prod(packed.shape)


def trained_whole(base: Base) -> list[str]:
    """List the modules that every method trains in full: head and fresh modules."""
    head = {
        name
        for name, module in base.model.named_children()
        if name != base.model.base_model_prefix and any(True for _ in module.parameters())
    }
    return sorted(head | set(base.fresh))


def within(name: str, parts: Collection[str]) -> bool:
    """Return True when a weight or module is in one of these parts of the model."""
    return any(part in parts for part in name.split("."))
