"""What of the model is tuned: every weight, or low-rank adapters. Loads the tuned model back for later stages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from service.errors import InputError
from training.base import Base, load_base
from training.recipe import FullMethod, LoraMethod, Recipe

ADAPTER = "adapter"
MODEL = "model"


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of weights."""

    trainable: int
    total: int


def prepare(base: Base, method: FullMethod | LoraMethod) -> torch.nn.Module:
    """The model to train. Raises InputError when a named target module is not in it."""
    if isinstance(method, FullMethod):
        return base.model
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=_targets(base, method),
        # PEFT guesses the head's name for some models only; what has no pretrained weights must be trained and saved.
        modules_to_save=base.fresh,
    )
    try:
        return cast("torch.nn.Module", get_peft_model(base.model, config))
    except ValueError as error:
        raise InputError(f"method.target_modules: {error}") from error


def count(model: torch.nn.Module) -> ParameterCount:
    """Trainable weights and all of them."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return ParameterCount(sum(size for size, tuned in sizes if tuned), sum(size for size, _ in sizes))


def save_tuned(model: Any, method: FullMethod | LoraMethod, directory: Path) -> None:
    """Write the adapter, or the whole model, as safetensors."""
    model.save_pretrained(directory / (ADAPTER if isinstance(method, LoraMethod) else MODEL), safe_serialization=True)


def load_tuned(recipe: Recipe, labels: list[str], directory: Path) -> PreTrainedModel | PeftModel:
    """The model as it was trained: the base with the saved adapter beside it, or the saved model."""
    if isinstance(recipe.method, LoraMethod):
        return PeftModel.from_pretrained(load_base(recipe, labels).model, directory / ADAPTER, is_trainable=False)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        directory / MODEL, use_safetensors=True, dtype=torch.float32
    )
    return model


def _targets(base: Base, method: LoraMethod) -> list[str]:
    if method.target_modules != "auto":
        return method.target_modules
    # "all-linear" of PEFT would take the fresh head as well, which is trained whole instead.
    linear = [
        name
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(part in base.fresh for part in name.split("."))
    ]
    if not linear:
        raise InputError("method.target_modules: the model has no linear layer; name the layers to adapt")
    return linear
