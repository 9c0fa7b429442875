"""Structured pruning: removes an encoder's least important attention heads and feed-forward neurons.

Importance is a first-order Taylor score, the mean over rows of |dL/dg| for a gate g = 1 that multiplies the output:
Michel et al. 2019 (https://arxiv.org/abs/1905.10650), section 4.1, for heads; Molchanov et al. 2019
(https://arxiv.org/abs/1906.10771), equation 8, for neurons. dL/dg is the sum of the output times its own gradient, so
no gate is built.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import prune_linear_layer

from bentune.bundle.errors import InputError
from training.recipe.compression import PruneSettings
from training.tasks.targets.losses import Loss
from training.tasks.text.tokenized import lengths_of

WeightScores = npt.NDArray[np.float64]
KEY = "prune.kind"
BATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class Layout:
    """Names in a family of encoders: the stack of layers, the linear layers of heads and neurons, the width."""

    layers: str
    after_heads: str
    before_neurons: str
    after_neurons: str
    neurons: str


BERT = Layout("encoder.layer", "attention.output.dense", "intermediate.dense", "output.dense", "intermediate_size")
DISTILBERT = Layout("transformer.layer", "attention.out_lin", "ffn.lin1", "ffn.lin2", "hidden_dim")

# For each of these, tests check that a pruned model loads and exports with the same logits.
LAYOUTS = {
    "bert": BERT,
    "roberta": BERT,
    "xlm-roberta": BERT,
    "electra": BERT,
    "distilbert": DISTILBERT,
}


@dataclass(frozen=True, slots=True)
class Gated:
    """Linear layer whose inputs form `groups` of equal size: the outputs of heads, or of single neurons."""

    module: torch.nn.Linear
    groups: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Numbers of heads and neurons, removed and before."""

    heads: int
    heads_before: int
    neurons: int
    neurons_before: int


def layout_of(model: PreTrainedModel, kind: str) -> Layout:
    """Look up a model's layout.

    Raises InputError for a model that cannot be pruned by `kind`.
    """
    layout = LAYOUTS.get(model.config.model_type)
    if layout is None:
        raise InputError(
            f"{KEY}: {kind} does not support the architecture {model.config.model_type}, only {', '.join(LAYOUTS)}: "
            "give `magnitude`, or distill into a smaller model"
        )
    if model.config.pruned_heads:
        raise InputError(
            f"{KEY}: {kind}: heads of the model were pruned before; give `magnitude`, or the model before pruning"
        )
    return layout


def remove_least_important(
    model: PreTrainedModel,
    settings: PruneSettings,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    advance: Callable[[int], None],
) -> Removed:
    """Remove the share `settings.amount` of heads, neurons or both.

    The least important ones for `rows` are removed. Heads of all layers are ranked together, each layer's scores
    divided by their Euclidean norm, as in Michel et al. 2019; every layer keeps one head. Every layer loses the same
    number of neurons, because the config holds one width for all. Raises InputError when the model cannot be pruned by
    this kind.
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
    """Choose heads to remove by layer from scores, float64 [layers, heads].

    A layer keeps its best head.
    """
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
    """Keep the `count` most important neurons of one layer, in their order."""
    chosen = cast("torch.LongTensor", torch.from_numpy(np.sort(np.argsort(-scores, kind="stable")[:count])))
    for path, dim in ((layout.before_neurons, 0), (layout.after_neurons, 1)):
        parent, _, name = path.rpartition(".")
        smaller = prune_linear_layer(_linear(layer, path), chosen, dim=dim)
        setattr(layer.get_submodule(parent), name, smaller)


def _linear(layer: torch.nn.Module, path: str) -> torch.nn.Linear:
    return cast("torch.nn.Linear", layer.get_submodule(path))


def taylor_scores(
    model: torch.nn.Module,
    gated: Sequence[Gated],
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    advance: Callable[[int], None],
) -> list[WeightScores]:
    """Score the groups of each gated layer, over tokenized rows with `labels`.

    A layer's scores are float64 [groups]. The model is left in eval mode and without gradients.
    """
    totals = [torch.zeros(one.groups, dtype=torch.float64) for one in gated]
    collate = DataCollatorWithPadding(tokenizer)
    order = np.argsort(lengths_of(rows), kind="stable")
    device = next(model.parameters()).device
    model.eval()
    with ExitStack() as hooks:
        for one, total in zip(gated, totals, strict=True):
            handle = one.module.register_forward_pre_hook(_watch(one.groups, total))
            hooks.callback(handle.remove)
        for start in range(0, len(rows), BATCH_SIZE):
            batch = collate([rows[int(row)] for row in order[start : start + BATCH_SIZE]])
            batch = {name: values.to(device) for name, values in batch.items()}
            labels = batch.pop("labels")
            logits = model(**batch).logits
            # A sum, so that a row's gradient does not depend on the size of its batch.
            (loss(logits, labels, batch) * len(labels)).backward()
            model.zero_grad(set_to_none=True)
            advance(len(labels))
    return [(total / len(rows)).numpy() for total in totals]


def _watch(groups: int, total: torch.Tensor) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
    def before(module: torch.nn.Module, given: tuple[Any, ...]) -> None:  # noqa: ARG001
        values: torch.Tensor = given[0]  # [rows, tokens, groups * size]

        def gradient_known(gradient: torch.Tensor) -> None:
            gates = (values.detach() * gradient).sum(dim=1).unflatten(-1, (groups, -1)).sum(dim=-1)
            total.add_(gates.abs().sum(dim=0).double().cpu())

        values.register_hook(gradient_known)

    return before
