"""Makes a student of a larger model: a model of the same kind with some of its layers."""

from typing import cast

import numpy as np
import torch
from transformers import PreTrainedModel

from bentune.bundle.errors import InputError

KEY = "distill.student_layers"


def with_fewer_layers(model: PreTrainedModel, keep: int) -> PreTrainedModel:
    """A model with `keep` of the encoder's layers, weights and head included, as DistilBERT was started.

    The layers are spaced evenly from the first to the last: of twelve, six are 0, 2, 4, 7, 9, 11, as in Sanh et al.
    2019 (https://arxiv.org/abs/1910.01108). The model is built from its changed config, so that it is what a saved copy
    loads as. Raises InputError where there are not so many layers, or they cannot be told.
    """
    path, there = _layers(model)
    if keep > there:
        raise InputError(f"{KEY}: {keep} is more than the {there} layers of the model; give fewer")
    if keep == there:
        return model
    places = {layer: place for place, layer in enumerate(np.linspace(0, there - 1, keep).round().astype(int).tolist())}
    config = type(model.config).from_dict(model.config.to_dict())
    config.num_hidden_layers = keep
    try:
        student = type(model)._from_config(config, dtype=torch.float32)
        student.load_state_dict(
            {
                name: weight
                for old, weight in model.state_dict().items()
                if (name := _renamed(old, f"{path}.", places)) is not None
            }
        )
    except Exception as error:  # a config or a model raises what it likes where its layers are not alike
        raise InputError(f"{KEY}: layers cannot be left out of a {model.config.model_type}: {error}") from error
    return cast("PreTrainedModel", student.eval())


def _layers(model: PreTrainedModel) -> tuple[str, int]:
    """Name and length of the list that holds the encoder's layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    if len(found) != 1 or count is None:
        raise InputError(
            f"{KEY}: a {model.config.model_type} has no list of layers to choose from; give a smaller model as `model`"
        )
    return found[0], int(count)


def _renamed(name: str, prefix: str, places: dict[int, int]) -> str | None:
    """The student's name of a weight; None for one of a layer that it does not have."""
    if not name.startswith(prefix):
        return name
    layer, _, rest = name.removeprefix(prefix).partition(".")
    place = places.get(int(layer))
    return None if place is None else f"{prefix}{place}.{rest}"
