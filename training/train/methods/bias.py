"""The biases and the head are tuned: about a thousandth of the weights (BitFit, Ben Zaken et al. 2021)."""

import torch

from bentune.bundle.errors import InputError
from training.tasks.base import Base
from training.train.methods.partial import Kept, train_only


class Bias(Kept):
    """As in https://arxiv.org/abs/2106.10199: every bias term, those of the layer norms too."""

    def prepare(self, base: Base) -> torch.nn.Module:
        """The base with only its biases and head to train. Raises InputError when the model has no bias."""
        encoder = base.model.base_model
        if not any(_is_bias(name) for name, _ in encoder.named_parameters()):
            raise InputError(
                f"method: the layers of {type(encoder).__name__} have no biases to train; choose `lora`, or `head`"
            )
        return train_only(base, _is_bias)


def _is_bias(name: str) -> bool:
    return name.endswith(".bias")
