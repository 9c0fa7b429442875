"""Heads and neurons are really gone, the right ones, and the model loads and is exported as it was pruned."""

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
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bentune.bundle.errors import InputError
from training.prove.export import _export
from training.recipe.compression import PruneSettings
from training.tasks.targets.losses import cross_entropy
from training.train.compress import structured
from training.train.compress.structured import Removed, _least_heads, layout_of, remove_least_important

ROWS = Dataset.from_dict(
    {"input_ids": [[2, 9, 14, 30, 3], [2, 11, 3], [2, 7, 8, 9, 10, 11, 12, 3]], "labels": [0, 2, 1]}
)


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
    with pytest.raises(InputError, match=r"^prune.kind: heads is not known for a albert, only for bert, .*`magnitude`"):
        layout_of(classifier("albert"), "heads")
    model = classifier()
    prune(model, tiny_model, "heads")
    with pytest.raises(InputError, match=r"^prune.kind: neurons: heads of the model were pruned before"):
        layout_of(model, "neurons")
