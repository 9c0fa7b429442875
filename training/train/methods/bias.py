"""Method `bias`: tunes the biases and the head, about a thousandth of the weights (BitFit, Ben Zaken et al. 2021)."""

import torch

from bentune.bundle.errors import InputError
from training.tasks.base.load import Base
from training.train.methods.partial import PartialTuning, train_only


class Bias(PartialTuning):
    """Tuning of every bias term, those of the layer norms too, as in https://arxiv.org/abs/2106.10199."""

    def prepare(self, base: Base) -> torch.nn.Module:
        """Freeze all but biases and head. Raises InputError when the model has no bias."""
        encoder = base.model.base_model
        if not any(_is_bias(name) for name, _ in encoder.named_parameters()):
            raise InputError(
                f"method: the layers of {type(encoder).__name__} have no biases to train; choose `lora`, or `head`"
            )
        return train_only(base, _is_bias)


def _is_bias(name: str) -> bool:
    return name.endswith(".bias")
