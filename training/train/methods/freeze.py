"""Method `freeze`: tunes the upper layers, or all but named parts of the model."""

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import cast

import torch
from transformers import PreTrainedModel

from bentune.bundle.errors import InputError
from training.recipe.method import FreezeMethod
from training.tasks.base.load import Base
from training.train.methods.layers import layers_of, lowest
from training.train.methods.partial import PartialTuning, train_only
from training.train.methods.tuning import trained_whole, within


@dataclass(frozen=True, slots=True)
class Freeze(PartialTuning):
    """Tuning with frozen embeddings and lowest layers, or with frozen modules that match a pattern."""

    settings: FreezeMethod

    def prepare(self, base: Base) -> torch.nn.Module:
        """Freeze the chosen weights.

        Raises InputError for layers or parts that the model lacks.
        """
        encoder = cast("PreTrainedModel", base.model.base_model)
        prefix = f"{base.model.base_model_prefix}."
        if self.settings.patterns is None:
            frozen = lowest(encoder, self._layers(encoder))
        else:
            frozen = _matching(encoder, self.settings.patterns, prefix, trained_whole(base))
        return train_only(base, lambda name: name.removeprefix(prefix) not in frozen)

    def _layers(self, encoder: PreTrainedModel) -> int:
        there = len(layers_of(encoder)[1])
        if self.settings.layers is None:
            return there // 2
        if self.settings.layers > there:
            raise InputError(
                f"method.layers: {self.settings.layers} is more than the {there} layers of the model; give fewer"
            )
        return self.settings.layers


def _matching(encoder: PreTrainedModel, patterns: list[str], prefix: str, whole: list[str]) -> set[str]:
    """List the weights of modules whose name matches a pattern.

    `*` matches any part of a name, including dots.
    """
    modules = [name for name, _ in encoder.named_modules() if name and not within(name, whole)]
    frozen: set[str] = set()
    for pattern in patterns:
        wanted = pattern.removeprefix(prefix)
        found = [name for name in modules if fnmatchcase(name, wanted)]
        if not found:
            close = difflib.get_close_matches(wanted, modules, n=1, cutoff=0.5)
            top = [name for name, _ in encoder.named_children() if name in modules]
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(top)}"
            raise InputError(f"method.patterns: no part of the model below the head matches {pattern!r}; {hint}")
        for name in found:
            frozen |= {f"{name}.{weight}" for weight, _ in encoder.get_submodule(name).named_parameters()}
    return frozen
