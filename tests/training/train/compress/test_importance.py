"""Taylor scores: what a gate at a head or a neuron would do to the loss, row by row."""

from typing import Any

import numpy as np
import pytest
import torch
from architectures import classifier
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.tasks.targets.losses import cross_entropy
from training.train.compress.importance import Gated, taylor_scores

ROWS = [[2, 9, 14, 30, 3], [2, 11, 3], [2, 7, 8, 9, 10, 11, 12, 3]]
GOLD = [0, 2, 1]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Any) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return loaded


def test_scores_of_heads_are_the_gradients_of_their_gates(tokenizer: PreTrainedTokenizerBase) -> None:
    """BERT has gates of its own, `head_mask`; of a batch of one row the gradient is that row's."""
    model = classifier(attn_implementation="eager")
    gated = [Gated(layer.attention.output.dense, 4) for layer in model.bert.encoder.layer]
    rows = Dataset.from_dict({"input_ids": ROWS, "attention_mask": [[1] * len(row) for row in ROWS], "labels": GOLD})
    advanced: list[int] = []
    scores = taylor_scores(model, gated, rows, tokenizer, cross_entropy, advanced.append)
    expected = np.zeros((3, 4))
    for ids, label in zip(ROWS, GOLD, strict=True):
        gates = torch.ones(3, 4, requires_grad=True)
        logits = model(input_ids=torch.tensor([ids]), head_mask=gates).logits
        (gradient,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([label]), {}), gates)
        expected += gradient.abs().numpy() / len(ROWS)
    np.testing.assert_allclose(np.stack(scores), expected, rtol=1e-4, atol=1e-7)
    assert expected.min() > 0
    assert sum(advanced) == 3
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_neuron_that_changes_nothing_has_no_score(tokenizer: PreTrainedTokenizerBase) -> None:
    model = classifier()
    layer = model.bert.encoder.layer[1]
    with torch.no_grad():
        layer.output.dense.weight[:, 5] = 0  # nothing is made of it
        layer.intermediate.dense.weight[7] = layer.intermediate.dense.bias[7] = 0  # it is always 0
    rows = Dataset.from_dict({"input_ids": ROWS, "labels": GOLD})
    (scores,) = taylor_scores(model, [Gated(layer.output.dense, 24)], rows, tokenizer, cross_entropy, lambda _: None)
    assert np.flatnonzero(scores < 1e-9).tolist() == [5, 7]
