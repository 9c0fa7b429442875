"""Finds a transformer's layers by its structure, whatever its family calls them, and what lies below them."""

import torch
from transformers import PreTrainedModel

from bentune.bundle.errors import InputError


def layers_of(encoder: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """The list of the layers from the lowest up, and its name: `encoder.layer` in BERT, `layers` in ModernBERT.

    Raises InputError when there is not exactly one such list, as where layers share their weights (ALBERT).
    """
    there = encoder.config.num_hidden_layers
    lists = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == there
    }
    outer = {name for name in lists if not any(name.startswith(f"{other}.") for other in lists)}
    if len(outer) != 1:
        raise InputError(
            f"method.layers: {type(encoder).__name__} is no single stack of {there} layers; name what stays as it is "
            "in method.patterns"
        )
    (name,) = outer
    return name, lists[name]


def lowest(encoder: PreTrainedModel, layers: int) -> set[str]:
    """Names of the weights of so many lowest layers and of all that comes before them, and of every embedding."""
    stack, modules = layers_of(encoder)
    names = [name for name, _ in encoder.named_parameters()]
    first = next(index for index, name in enumerate(names) if name.startswith(f"{stack}."))
    below = {f"{stack}.{layer}.{name}" for layer in range(layers) for name, _ in modules[layer].named_parameters()}
    embeddings = {
        f"{name}.weight"
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Embedding) and not name.startswith(f"{stack}.")
    }
    return {*names[:first], *below, *embeddings}
