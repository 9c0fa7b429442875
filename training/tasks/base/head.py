"""Head of a base model that is a classifier: its rows are matched with the data's labels by name, not by place."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from bentune.bundle.errors import InputError

SHOWN, SHOWN_CHARACTERS = 5, 40
"""Most labels of one kind in a message, and most characters of a label: a model's files may hold any name."""


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """Match of labels: `rows` maps numbers of the data's labels to numbers of the base model's labels."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    rows: Mapping[int, int]

    @property
    def whole(self) -> bool:
        """Return True when the base model has each label."""
        return len(self.rows) == len(self.ours)

    @property
    def in_place(self) -> bool:
        """Return True when both have the same labels in the same order."""
        return self.whole and len(self.ours) == len(self.theirs) and all(a == b for a, b in self.rows.items())

    def __str__(self) -> str:
        if not self.rows:
            return "fresh head: the model has other labels than the data"
        said = f"head kept: {len(self.rows)} of {len(self.ours)} labels by name"
        spelled = [(self.ours[a], self.theirs[b]) for a, b in self.rows.items() if self.ours[a] != self.theirs[b]]
        if spelled:
            said += f"; the model spells {_listed([f'{_named(ours)} as {_named(theirs)}' for ours, theirs in spelled])}"
        new = [_named(label) for number, label in enumerate(self.ours) if number not in self.rows]
        return f"{said}; fresh rows for {_listed(new)}" if new else said


def match_labels(ours: Sequence[str], theirs: Sequence[str]) -> LabelMatch:
    """Match labels by name, or else by spelling.

    Spellings are equal if they differ in case, width, blanks, `-` and `_` alone. A spelling of two labels of the data,
    or of the model, matches nothing.
    """
    named = {label: number for number, label in enumerate(theirs)}
    spelled, known = _by_spelling(theirs), _by_spelling(ours)
    rows = {}
    for number, label in enumerate(ours):
        found = named.get(label)
        if found is None and known.get(_spelling(label)) == number:
            found = spelled.get(_spelling(label))
        if found is not None:
            rows[number] = found
    if len(set(rows.values())) < len(rows):  # a label's name is another label's spelling
        rows = {number: found for number, found in rows.items() if ours[number] == theirs[found]}
    return LabelMatch(tuple(ours), tuple(theirs), rows)


def output_layers(model: PreTrainedModel, labels: int) -> dict[str, nn.Linear]:
    """Find the layers of the head whose outputs are the logits.

    Their weights are float [labels, width].
    """
    found = {
        name: module
        for name, module in head_modules(model).items()
        if isinstance(module, nn.Linear) and module.out_features == labels
    }
    narrowing = {name: layer for name, layer in found.items() if layer.in_features != labels}
    return narrowing or found


def has_head(model: PreTrainedModel, missing: set[str], labels: int) -> bool:
    """Return True when the checkpoint had a head, of any number of labels.

    `missing` are the weights that the checkpoint lacks.
    """
    layers = output_layers(model, labels) or head_modules(model)
    return bool(layers) and not missing.intersection(f"{name}.weight" for name in layers)


def head_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the modules with weights outside the encoder, by name.

    The result is empty where transformers does not name the encoder.
    """
    encoder = model.base_model_prefix
    if not isinstance(getattr(model, encoder, None), nn.Module):
        return {}
    return {
        name: module
        for name, module in model.named_modules()
        if name and name != encoder and not name.startswith(f"{encoder}.") and any(True for _ in module.parameters())
    }


def renew(model: PreTrainedModel, modules: Mapping[str, nn.Module]) -> None:
    """Initialize modules at random, as transformers does for missing weights."""
    for module in modules.values():
        model._init_weights(module)


def take_rows(model: PreTrainedModel, known: PreTrainedModel, match: LabelMatch) -> None:
    """Copy the rows of matching labels from the head of `known`.

    `known` is the base model with its own labels. Raises InputError where the layers of the logits cannot be found.
    """
    layers, taken = output_layers(model, len(match.ours)), output_layers(known, len(match.theirs))
    if not layers or layers.keys() != taken.keys():
        raise InputError(
            f"model: the head of a {model.config.model_type} cannot be matched with the data's labels by name; "
            "give a model without a classifier"
        )
    ours, theirs = list(match.rows), list(match.rows.values())
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight[ours] = taken[name].weight[theirs]
            if layer.bias is not None:
                layer.bias[ours] = taken[name].bias[theirs]


def _by_spelling(labels: Sequence[str]) -> dict[str, int]:
    found: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        found.setdefault(_spelling(label), []).append(number)
    return {spelling: numbers[0] for spelling, numbers in found.items() if len(numbers) == 1}


def _spelling(label: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", label).casefold()).strip()


def _named(label: str) -> str:
    return repr(label if len(label) <= SHOWN_CHARACTERS else f"{label[:SHOWN_CHARACTERS]}...")


def _listed(words: Sequence[str]) -> str:
    more = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")
