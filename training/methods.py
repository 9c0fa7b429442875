"""What of the model is tuned: every weight, or low-rank adapters. Loads the tuned model back for later stages."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from service.errors import InputError
from training.base import Base, base_digest, load_base
from training.method_settings import FullMethod, LoraMethod
from training.recipe import Recipe

ADAPTER = "adapter"
MODEL = "model"
BASE = "base.json"


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of weights."""

    trainable: int
    total: int


def prepare(base: Base, method: FullMethod | LoraMethod) -> torch.nn.Module:
    """The model to train. Raises InputError when a named target module is not in it."""
    if isinstance(method, FullMethod):
        return base.model
    whole = _trained_whole(base)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=_targets(base, method, whole),
        # PEFT guesses the head's name for some models only.
        modules_to_save=whole,
    )
    try:
        return cast("torch.nn.Module", get_peft_model(base.model, config))
    except ValueError as error:
        raise InputError(f"method.target_modules: {error}") from error


def count(model: torch.nn.Module) -> ParameterCount:
    """Trainable weights and all of them."""
    # PEFT keeps the untrained head beside the one that it trains.
    weights = [weight for name, weight in model.named_parameters() if ".original_module." not in name]
    return ParameterCount(
        trainable=sum(weight.numel() for weight in weights if weight.requires_grad),
        total=sum(weight.numel() for weight in weights),
    )


def save_tuned(model: Any, method: FullMethod | LoraMethod, directory: Path) -> None:
    """Write the adapter, or the whole model, as safetensors."""
    model.save_pretrained(directory / (ADAPTER if isinstance(method, LoraMethod) else MODEL), safe_serialization=True)


def load_same_base(recipe: Recipe, labels: list[str], directory: Path) -> PreTrainedModel:
    """The base that was tuned, which a warm start took from the parent's run.

    Raises InputError when its files, or its commit on the hub, changed since.
    """
    base = json.loads((directory / BASE).read_text(encoding="utf-8"))
    tuned = recipe.model_copy(update={"model": base["warm_start"]}) if "warm_start" in base else recipe
    model = load_base(tuned, labels).model
    if base_digest(tuned, model) != base["sha256"]:
        raise InputError(
            f"model: {tuned.model} is not what it was when it was tuned: run `bentune train` again, or put it back"
        )
    return model


def load_tuned(recipe: Recipe, labels: list[str], directory: Path) -> PreTrainedModel | PeftModel:
    """The model as it was trained: the base with the saved adapter beside it, or the saved model."""
    if isinstance(recipe.method, LoraMethod):
        base = load_same_base(recipe, labels, directory)
        return PeftModel.from_pretrained(base, directory / ADAPTER, is_trainable=False)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        directory / MODEL, use_safetensors=True, dtype=torch.float32
    )
    return model


def _trained_whole(base: Base) -> list[str]:
    """The head, and what else has no pretrained weights: an adapter beside random weights would learn little."""
    head = {
        name
        for name, module in base.model.named_children()
        if name != base.model.base_model_prefix and any(True for _ in module.parameters())
    }
    return sorted(head | set(base.fresh))


def _targets(base: Base, method: LoraMethod, whole: list[str]) -> list[str]:
    # Not PEFT's "all-linear", which takes the head as well.
    linear = [
        name
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(part in whole for part in name.split("."))
    ]
    if method.target_modules == "auto":
        if not linear:
            raise InputError("method.target_modules: the model has no linear layer; name the layers to adapt")
        return linear
    adaptable = [
        name
        for name, module in base.model.named_modules()
        if name and not any(part in whole for part in name.split(".")) and not any(True for _ in module.children())
    ]
    for target in method.target_modules:
        # PEFT itself takes a list in which one name is right.
        if not any(name == target or name.endswith(f".{target}") for name in adaptable):
            names = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            close = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(
                f"method.target_modules: no layer below the head is {target!r}; there are {', '.join(names)}{hint}"
            )
    return method.target_modules
