"""How much each attention head and each feed-forward neuron counts for the loss: first-order Taylor scores.

The score of a head or neuron is the mean over rows of |dL/dg|, g being a gate of 1 that its output is multiplied with:
Michel et al. 2019 (https://arxiv.org/abs/1905.10650), section 4.1, for heads; Molchanov et al. 2019
(https://arxiv.org/abs/1906.10771), equation 8, for neurons. dL/dg is the sum of the output times its own gradient, so
no gate is built.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from training.tasks.targets.losses import Loss
from training.tasks.text.tokenized import lengths_of

WeightScores = npt.NDArray[np.float64]
BATCH = 16


@dataclass(frozen=True, slots=True)
class Gated:
    """A linear layer whose inputs come in `groups` of like size: the heads' outputs, or each neuron's own."""

    module: torch.nn.Linear
    groups: int


def taylor_scores(
    model: torch.nn.Module,
    gated: Sequence[Gated],
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    loss: Loss,
    advance: Callable[[int], None],
) -> list[WeightScores]:
    """For each of `gated`, the scores of its groups, float64 [groups], over tokenized rows with `labels`.

    The model is put into eval mode, and is left without gradients.
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
        for start in range(0, len(rows), BATCH):
            batch = collate([rows[int(row)] for row in order[start : start + BATCH]])
            batch = {name: values.to(device) for name, values in batch.items()}
            labels = batch.pop("labels")
            logits = model(**batch).logits
            # The sum, so that a row's gradient is its own, whatever else is in the batch.
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
