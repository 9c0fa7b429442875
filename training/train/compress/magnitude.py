"""Magnitude pruning: the smallest weights become zero, and stay zero while the others are tuned."""

from collections.abc import Iterator

import torch
from torch.nn.utils import prune
from transformers import PreTrainedModel


def zero_smallest(model: PreTrainedModel, amount: float) -> None:
    """Set the share `amount` of the encoder's linear weights to zero, the smallest of all layers together.

    Biases, embeddings and the head are left (Han et al. 2015, https://arxiv.org/abs/1506.02626; ranked over all layers
    as in torch.nn.utils.prune.global_unstructured).
    """
    linear = [(module, "weight") for module in _linear_layers(model)]
    prune.global_unstructured(linear, pruning_method=prune.L1Unstructured, amount=amount)
    for module, name in linear:
        prune.remove(module, name)


def hold_zeros(model: PreTrainedModel) -> None:
    """Keep what is zero now at zero in training; `release` makes plain weights of it again."""
    for module in _linear_layers(model):
        prune.custom_from_mask(module, "weight", (module.weight != 0).to(module.weight.dtype))


def release(model: PreTrainedModel) -> None:
    """Undo `hold_zeros`; the zeros stay."""
    for module in _linear_layers(model):
        prune.remove(module, "weight")


def zeros(model: PreTrainedModel) -> float:
    """The share of the encoder's linear weights that are exactly zero."""
    weights = [module.weight for module in _linear_layers(model)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def _linear_layers(model: PreTrainedModel) -> Iterator[torch.nn.Linear]:
    return (module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear))
