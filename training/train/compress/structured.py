"""Structured pruning: takes attention heads and feed-forward neurons out of an encoder, so that its matrices shrink."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import prune_linear_layer

from bentune.bundle.errors import InputError
from training.recipe.compression import PruneSettings
from training.tasks.targets.losses import Loss
from training.train.compress.importance import Gated, WeightScores, taylor_scores

KEY = "prune.kind"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a family of encoders keeps its layers, in each the layers that heads and neurons end in, and its config."""

    layers: str
    after_heads: str
    before_neurons: str
    after_neurons: str
    neurons: str


BERT = Layout("encoder.layer", "attention.output.dense", "intermediate.dense", "output.dense", "intermediate_size")
DISTILBERT = Layout("transformer.layer", "attention.out_lin", "ffn.lin1", "ffn.lin2", "hidden_dim")

# Of these it is tried that a pruned model loads, and is exported, as it was saved.
LAYOUTS = {
    "bert": BERT,
    "roberta": BERT,
    "xlm-roberta": BERT,
    "electra": BERT,
    "distilbert": DISTILBERT,
}


@dataclass(frozen=True, slots=True)
class Removed:
    """How many heads and neurons of how many were taken out."""

    heads: int
    heads_before: int
    neurons: int
    neurons_before: int


def layout_of(model: PreTrainedModel, kind: str) -> Layout:
    """Raises InputError for a model that `kind` of pruning is not known for."""
    layout = LAYOUTS.get(model.config.model_type)
    if layout is None:
        raise InputError(
            f"{KEY}: {kind} is not known for a {model.config.model_type}, only for {', '.join(LAYOUTS)}: "
            "give `magnitude`, or distill into a smaller model"
        )
    if model.config.pruned_heads:
        raise InputError(f"{KEY}: {kind}: heads of the model were pruned before; give `magnitude`, or the whole model")
    return layout


def remove_least_important(
    model: PreTrainedModel,
    settings: PruneSettings,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    advance: Callable[[int], None],
) -> Removed:
    """Take the share `settings.amount` of heads, neurons or both out of the model, the least important for `rows`.

    Heads of all layers are ranked together, each layer's scores divided by their Euclidean norm, as Michel et al. 2019
    do; every layer keeps one. Of neurons each layer loses as many, for its config has one number for all. Raises
    InputError when the model cannot be pruned so.
    """
    layout = layout_of(model, settings.kind)
    layers = list(cast("torch.nn.ModuleList", model.base_model.get_submodule(layout.layers)))
    heads, width = model.config.num_attention_heads, getattr(model.config, layout.neurons)
    gated = [Gated(_linear(layer, layout.after_heads), heads) for layer in layers]
    gated += [Gated(_linear(layer, layout.after_neurons), width) for layer in layers]
    scores = taylor_scores(model, gated, rows, tokenizer, loss, advance)
    gone = _least_heads(np.stack(scores[: len(layers)]), settings.amount) if settings.kind != "neurons" else {}
    kept = max(1, round(width * (1 - settings.amount))) if settings.kind != "heads" else width
    if gone:
        model.prune_heads(gone)
    if kept < width:
        for layer, neurons in zip(layers, scores[len(layers) :], strict=True):
            _keep(layer, layout, neurons, kept)
        setattr(model.config, layout.neurons, kept)
    return Removed(
        heads=sum(map(len, gone.values())),
        heads_before=heads * len(layers),
        neurons=(width - kept) * len(layers),
        neurons_before=width * len(layers),
    )


def _least_heads(scores: WeightScores, amount: float) -> dict[int, list[int]]:
    """Heads to remove by layer, from scores, float64 [layers, heads]; the best one of a layer stays."""
    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    ranked = scores / np.where(norms > 0, norms, 1)
    ranked[np.arange(len(ranked)), ranked.argmax(axis=1)] = np.inf
    most = np.isfinite(ranked).sum()
    least = np.argsort(ranked, axis=None, kind="stable")[: min(round(amount * scores.size), most)]
    gone: dict[int, list[int]] = {}
    for layer, head in sorted(divmod(int(place), scores.shape[1]) for place in least):
        gone.setdefault(layer, []).append(head)
    return gone


def _keep(layer: torch.nn.Module, layout: Layout, scores: WeightScores, count: int) -> None:
    """Leave the `count` most important neurons of one layer, in the order they had."""
    chosen = cast("torch.LongTensor", torch.from_numpy(np.sort(np.argsort(-scores, kind="stable")[:count])))
    for path, dim in ((layout.before_neurons, 0), (layout.after_neurons, 1)):
        parent, _, name = path.rpartition(".")
        smaller = prune_linear_layer(_linear(layer, path), chosen, dim=dim)
        setattr(layer.get_submodule(parent), name, smaller)


def _linear(layer: torch.nn.Module, path: str) -> torch.nn.Linear:
    return cast("torch.nn.Linear", layer.get_submodule(path))
