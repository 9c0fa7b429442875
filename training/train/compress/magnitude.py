"""Magnitude pruning: the smallest weights become zero, and stay zero during further tuning."""

from collections.abc import Iterator

import torch
from torch.nn.utils import prune
from transformers import PreTrainedModel


def zero_smallest(model: PreTrainedModel, amount: float) -> None:
    """Set the smallest share `amount` of the encoder's linear weights to zero.

    The weights are ranked over all layers. Biases, embeddings and the head are unchanged (Han et al. 2015,
    https://arxiv.org/abs/1506.02626; global ranking as in torch.nn.utils.prune.global_unstructured).
    """
    linear = [(module, "weight") for module in _linear_layers(model)]
    prune.global_unstructured(linear, pruning_method=prune.L1Unstructured, amount=amount)
    for module, name in linear:
        prune.remove(module, name)


def hold_zeros(model: PreTrainedModel) -> None:
    """Keep the present zeros at zero during training, by a mask.

    `release` restores plain weights.
    """
    for module in _linear_layers(model):
        prune.custom_from_mask(module, "weight", (module.weight != 0).to(module.weight.dtype))


def release(model: PreTrainedModel) -> None:
    """Remove the masks of `hold_zeros`; the zeros stay."""
    for module in _linear_layers(model):
        prune.remove(module, "weight")


def zeros(model: PreTrainedModel) -> float:
    """Return the share of the encoder's linear weights that are exactly zero."""
    weights = [module.weight for module in _linear_layers(model)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def _linear_layers(model: PreTrainedModel) -> Iterator[torch.nn.Linear]:
    return (module for module in model.base_model.modules() if isinstance(module, torch.nn.Linear))
