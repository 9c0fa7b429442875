"""Layers of a transformer, found by its structure instead of by name."""

import torch
from transformers import PreTrainedModel

from bentune.bundle.errors import InputError


def layers_of(encoder: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """Find the list of layers, lowest first, and its name.

    The name is `encoder.layer` in BERT, `layers` in ModernBERT. Raises InputError when there is not exactly one such
    list, as in ALBERT, whose layers share their weights.
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
            f"method.layers: {type(encoder).__name__} is no single stack of {there} layers; name the modules to freeze "
            "in method.patterns"
        )
    (name,) = outer
    return name, lists[name]


def lowest(encoder: PreTrainedModel, layers: int) -> set[str]:
    """List weights of the lowest `layers`, all modules before them and all embeddings."""
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
