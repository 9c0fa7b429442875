"""Freezing: the lowest layers and the embeddings, or named parts; what is not there is named with what is near."""

from pathlib import Path
from typing import Any

import pytest
from tiny import make_model
from transformers import AlbertConfig, AlbertModel, BertConfig, BertForSequenceClassification
from tuning import make_family, make_masked, prepared, recipe, trained_names

from bentune.bundle.errors import InputError

LOWEST = {
    "distilbert": "transformer.layer.0.",
    "roberta": "encoder.layer.0.",
    "modernbert": "layers.0.",
    "gpt2": "h.0.",
}
EMBEDDINGS = {
    "distilbert": {"embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias"},
    "roberta": {"embeddings.position_embeddings.weight", "embeddings.LayerNorm.weight"},
    "modernbert": {"embeddings.tok_embeddings.weight", "embeddings.norm.weight"},
    "gpt2": {"wte.weight", "wpe.weight"},
}


def frozen_names(model: Any) -> set[str]:
    prefix = f"{model.base_model_prefix}."
    return {name.removeprefix(prefix) for name, weight in model.named_parameters() if not weight.requires_grad}


def below(model: Any, *parts: str) -> set[str]:
    names = {name for name, _ in model.base_model.named_parameters()}
    return {name for name in names if name.startswith(parts)}


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ("freeze", ("embeddings.", "encoder.layer.0.")),
        ({"name": "freeze", "layers": 0}, ("embeddings.",)),
        ({"name": "freeze", "layers": 1}, ("embeddings.", "encoder.layer.0.")),
        ({"name": "freeze", "layers": 2}, ("embeddings.", "encoder.layer.")),
        ({"name": "freeze", "patterns": ["embeddings", "encoder.layer.0"]}, ("embeddings.", "encoder.layer.0.")),
        ({"name": "freeze", "patterns": ["bert.encoder.layer.[1-9]"]}, ("encoder.layer.1.",)),
        (
            {"name": "freeze", "patterns": ["*.attention"]},
            ("encoder.layer.0.attention.", "encoder.layer.1.attention."),
        ),
    ],
)
def test_what_stays_as_it_is(settings: Any, parts: tuple[str, ...], tiny_model: Path) -> None:
    model = prepared(recipe(tiny_model, settings))
    assert frozen_names(model) == below(model, *parts)
    assert {"classifier.weight", "bert.pooler.dense.weight"} <= trained_names(model)


@pytest.mark.parametrize("family", sorted(LOWEST))
def test_layers_are_found_in_other_families(family: str, tmp_path: Path) -> None:
    model = prepared(recipe(make_family(family, tmp_path / "model"), "freeze"))
    frozen = frozen_names(model)
    assert EMBEDDINGS[family] <= frozen
    layer = {name for name in frozen if name.startswith(LOWEST[family])}
    assert layer == below(model, LOWEST[family])
    others = frozen - layer
    assert others
    assert all("emb" in name or name.startswith(("wte", "wpe")) for name in others)


def test_what_has_no_pretrained_weights_is_trained_whatever_is_frozen(tmp_path: Path) -> None:
    model = prepared(recipe(make_masked(tmp_path / "masked"), {"name": "freeze", "patterns": ["*"]}))
    assert {name.partition(".dense")[0] for name in trained_names(model)} == {
        "bert.pooler",
        "classifier.weight",
        "classifier.bias",
    }


def test_a_head_that_the_checkpoint_has_is_trained_too(tmp_path: Path) -> None:
    path = make_model(tmp_path / "model")
    BertForSequenceClassification(BertConfig.from_pretrained(path, num_labels=3)).save_pretrained(path)
    assert {"classifier.weight", "classifier.bias"} <= trained_names(prepared(recipe(path, "freeze")))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("embedings", "matches 'embedings'; did you mean 'embeddings'?"),
        ("encoder.layers.1", "matches 'encoder.layers.1'; did you mean 'encoder.layer.1'?"),
        ("encoder.layer.7", "did you mean 'encoder.layer."),
        ("zzz", "matches 'zzz'; there are embeddings, encoder, pooler"),
        ("classifier", "there are embeddings, encoder, pooler"),
    ],
)
def test_a_part_that_is_not_there(pattern: str, words: str, tiny_model: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepared(recipe(tiny_model, {"name": "freeze", "patterns": ["embeddings", pattern]}))
    assert str(caught.value).startswith("method.patterns: no part of the model below the head ")
    assert words in str(caught.value)


def test_more_layers_than_there_are(tiny_model: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepared(recipe(tiny_model, {"name": "freeze", "layers": 3}))
    assert str(caught.value) == "method.layers: 3 is more than the 2 layers of the model; give fewer"


def test_layers_that_share_their_weights_cannot_be_told_apart(tmp_path: Path) -> None:
    config = AlbertConfig(
        vocab_size=80,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
    )
    AlbertModel(config).save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match="method.layers: AlbertModel is no single stack of 3 layers; .*method.patterns"
    ):
        prepared(recipe(tmp_path, "freeze"))
    assert prepared(recipe(tmp_path, {"name": "freeze", "patterns": ["embeddings"]}))
