"""BitFit: every bias, the head, and nothing else."""

from pathlib import Path

import pytest
from tuning import make_family, make_masked, prepared, recipe, trained_names

from bentune.bundle.errors import InputError
from training.train.methods import ParameterCount, count

HEAD = {"classifier.weight", "classifier.bias"}


def test_every_bias_and_the_head_are_trained(tiny_model: Path) -> None:
    model = prepared(recipe(tiny_model, "bias"))
    biases = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    assert trained_names(model) == biases | HEAD
    # A layer's six linear layers and two norms; the norm of the embeddings; the pooler; the head.
    trainable = 2 * (5 * 32 + 64 + 2 * 32) + 32 + 32 + (32 * 3 + 3)
    assert count(model) == ParameterCount(trainable, count(prepared(recipe(tiny_model, "full"))).total)


def test_a_fresh_pooler_is_trained_whole(tmp_path: Path) -> None:
    assert "bert.pooler.dense.weight" in trained_names(prepared(recipe(make_masked(tmp_path / "masked"), "bias")))


@pytest.mark.parametrize("family", ["distilbert", "roberta", "gpt2"])
def test_other_families(family: str, tmp_path: Path) -> None:
    model = prepared(recipe(make_family(family, tmp_path / "model"), "bias"))
    encoder = f"{model.base_model_prefix}."
    names = {name for name in trained_names(model) if name.startswith(encoder)}
    assert names == {name for name, _ in model.named_parameters() if name.startswith(encoder) and name.endswith("bias")}
    assert len(names) > 12


def test_a_model_without_biases_is_refused(tmp_path: Path) -> None:
    asked = recipe(make_family("modernbert", tmp_path / "model"), "bias")
    with pytest.raises(
        InputError, match="method: the layers of ModernBertModel have no biases to train; choose `lora`"
    ):
        prepared(asked)
