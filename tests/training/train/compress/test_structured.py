"""The least important heads and neurons are really gone, and the model loads and is exported as it was pruned."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from architectures import ENCODERS, batch, classifier
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from bentune.bundle.errors import InputError
from training.prove.export import _export
from training.recipe.compression import PruneSettings
from training.tasks.targets.losses import cross_entropy
from training.train.compress import structured
from training.train.compress.structured import (
    Gated,
    Removed,
    _least_heads,
    layout_of,
    remove_least_important,
    taylor_scores,
)

TOKENS = [[2, 9, 14, 30, 3], [2, 11, 3], [2, 7, 8, 9, 10, 11, 12, 3]]
GOLD = [0, 2, 1]
ROWS = Dataset.from_dict({"input_ids": TOKENS, "labels": GOLD})


def prune(model: Any, tiny_model: Path, kind: str = "structured", amount: float = 0.5) -> Removed:
    settings = PruneSettings.model_validate({"kind": kind, "amount": amount})
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return remove_least_important(model, settings, ROWS, tokenizer, cross_entropy, lambda _: None)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_pruned_model_loads_and_is_exported_as_it_is(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    model = classifier(kind)
    before = sum(weight.numel() for weight in model.parameters())
    assert prune(model, tiny_model) == Removed(heads=6, heads_before=12, neurons=36, neurons_before=72)
    # A head has 3 x 16 x 4 weights and 3 x 4 biases going in and 4 x 16 going out, a neuron 16 + 1 and 16.
    assert sum(weight.numel() for weight in model.parameters()) == before - 6 * (204 + 64) - 36 * 33
    logits = model(**batch()).logits.detach()
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(loaded(**batch()).logits, logits)
    _export(tmp_path / "model", tmp_path / "onnx", "text-classification")
    session = onnxruntime.InferenceSession(tmp_path / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    feed = {name: values.numpy() for name, values in batch().items()}
    feed["token_type_ids"] = np.zeros_like(feed["input_ids"])
    taken = {node.name for node in session.get_inputs()}
    (exported,) = session.run(["logits"], {name: values for name, values in feed.items() if name in taken})
    np.testing.assert_allclose(exported, logits.numpy(), atol=1e-4)


def test_what_is_removed_is_what_counts_least(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without it the model answers as if its gates were shut."""
    heads = [[5.0, 1.0, 4.0, 3.0], [9.0, 8.0, 0.5, 7.0], [0.1, 0.2, 0.3, 0.4]]
    neurons = np.random.default_rng(0).random((3, 24))
    monkeypatch.setattr(structured, "taylor_scores", lambda *_: [*map(np.array, heads), *neurons])
    model, whole = classifier(attn_implementation="eager"), classifier(attn_implementation="eager")
    prune(model, tiny_model, amount=0.25)
    # By layer divided by the norm: 0.14 of the first layer, 0.04 of the second, 0.18 of the third.
    assert model.config.pruned_heads == {0: [1], 1: [2], 2: [0]}
    gates = torch.ones(3, 4)
    gates[0, 1] = gates[1, 2] = gates[2, 0] = 0
    with torch.no_grad():
        for layer, scores in zip(whole.bert.encoder.layer, neurons, strict=True):
            layer.output.dense.weight[:, torch.from_numpy(np.argsort(scores)[:6].copy())] = 0
    torch.testing.assert_close(model(**batch()).logits, whole(**batch(), head_mask=gates).logits)


@pytest.mark.parametrize(("kind", "heads", "neurons"), [("heads", 6, 0), ("neurons", 0, 36)])
def test_one_kind_leaves_the_other(kind: str, heads: int, neurons: int, tiny_model: Path) -> None:
    removed = prune(classifier(), tiny_model, kind)
    assert (removed.heads, removed.neurons) == (heads, neurons)


@given(arrays(np.float64, (3, 4), elements=st.floats(0, 1e6)), st.floats(0.01, 0.99))
def test_every_layer_keeps_its_best_head(scores: Any, amount: float) -> None:
    gone = _least_heads(scores, amount)
    assert sum(map(len, gone.values())) == min(round(amount * 12), 9)
    for layer, heads in gone.items():
        kept = [head for head in range(4) if head not in heads]
        assert kept
        assert max(scores[layer, heads]) <= min(scores[layer, kept])


def test_what_cannot_be_pruned_is_refused(tiny_model: Path) -> None:
    with pytest.raises(
        InputError, match=r"^prune.kind: heads does not support the architecture albert, only bert, .*`magnitude`"
    ):
        layout_of(classifier("albert"), "heads")
    model = classifier()
    prune(model, tiny_model, "heads")
    with pytest.raises(InputError, match=r"^prune.kind: neurons: heads of the model were pruned before"):
        layout_of(model, "neurons")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Any) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return loaded


def test_scores_of_heads_are_the_gradients_of_their_gates(tokenizer: PreTrainedTokenizerBase) -> None:
    """BERT has gates of its own for its heads, `head_mask`.

    In a batch of one row the gradient is that of the row.
    """
    model = classifier(attn_implementation="eager")
    gated = [Gated(layer.attention.output.dense, 4) for layer in model.bert.encoder.layer]
    rows = Dataset.from_dict(
        {"input_ids": TOKENS, "attention_mask": [[1] * len(row) for row in TOKENS], "labels": GOLD}
    )
    advanced: list[int] = []
    scores = taylor_scores(model, gated, rows, tokenizer, cross_entropy, advanced.append)
    expected = np.zeros((3, 4))
    for ids, label in zip(TOKENS, GOLD, strict=True):
        gates = torch.ones(3, 4, requires_grad=True)
        logits = model(input_ids=torch.tensor([ids]), head_mask=gates).logits
        (gradient,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([label]), {}), gates)
        expected += gradient.abs().numpy() / len(TOKENS)
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
    (scores,) = taylor_scores(model, [Gated(layer.output.dense, 24)], ROWS, tokenizer, cross_entropy, lambda _: None)
    assert np.flatnonzero(scores < 1e-9).tolist() == [5, 7]
