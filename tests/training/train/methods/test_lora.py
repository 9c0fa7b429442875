"""LoRA: which layers get an adapter, what is trained beside them, and how the options change that."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_model
from transformers import BertConfig, BertForSequenceClassification
from tuning import LABELS, logits, make_family, make_masked, prepared, recipe, saved

from bentune.bundle.errors import InputError
from training.tasks.base.load import load_base
from training.train.methods import ParameterCount, count, load_tuned

HIDDEN, INTERMEDIATE, LAYERS = 32, 64, 2
HEAD = HIDDEN * 3 + 3
POOLER = HIDDEN * HIDDEN + HIDDEN


def adapter(rank: int, inputs: int, outputs: int) -> int:
    return rank * (inputs + outputs)


def adapted(model: torch.nn.Module) -> set[str]:
    """Names of the layers that have an adapter, as the base model calls them."""
    names = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    return {name.removeprefix("base_model.model.") for name in names}


@pytest.mark.parametrize("rank", [1, 4])
def test_its_adapters_and_the_head_are_trained(rank: int, tiny_model: Path) -> None:
    whole = count(prepared(recipe(tiny_model, "full"))).total
    model = prepared(recipe(tiny_model, {"name": "lora", "rank": rank}))
    layer = 4 * adapter(rank, HIDDEN, HIDDEN) + 2 * adapter(rank, HIDDEN, INTERMEDIATE)
    adapters = LAYERS * layer + adapter(rank, HIDDEN, HIDDEN)  # and the pooler's
    assert count(model) == ParameterCount(trainable=adapters + HEAD, total=whole + adapters)


def test_every_linear_layer_but_the_head_gets_an_adapter(tiny_model: Path) -> None:
    base = load_base(recipe(tiny_model, "full"), LABELS).model
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    assert adapted(prepared(recipe(tiny_model, "lora"))) == linear - {"classifier"}


@pytest.mark.parametrize("family", ["distilbert", "roberta", "modernbert"])
def test_another_familys_layers_get_one_too(family: str, tmp_path: Path) -> None:
    asked = recipe(make_family(family, tmp_path / "model"), "lora")
    base = load_base(asked, LABELS)
    encoder = {name for name, module in base.model.base_model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert encoder
    assert adapted(prepared(asked)) == {f"{base.model.base_model_prefix}.{name}" for name in encoder}


def test_a_head_that_the_checkpoint_has_is_trained_whole_as_well(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    BertForSequenceClassification(
        BertConfig.from_pretrained(model, num_labels=3, id2label=dict(enumerate(LABELS)))
    ).save_pretrained(model)
    asked = recipe(model, "lora")
    assert load_base(asked, LABELS).fresh == []
    tuned = prepared(asked)
    assert "classifier" not in {name.rpartition(".")[2] for name in adapted(tuned)}
    assert any(
        "classifier.modules_to_save" in name and weight.requires_grad for name, weight in tuned.named_parameters()
    )


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_fresh_pooler_is_trained_whole_and_saved(method: str, tmp_path: Path) -> None:
    asked = recipe(make_masked(tmp_path / "masked"), {"name": method, "rank": 2})
    model = saved(asked, tmp_path / "tuned")
    assert not any("pooler" in name for name in adapted(model))
    adapters = LAYERS * (4 * adapter(2, HIDDEN, HIDDEN) + 2 * adapter(2, HIDDEN, INTERMEDIATE))
    assert count(model).trainable == adapters + HEAD + POOLER
    weights = load_file(tmp_path / "tuned/adapter/adapter_model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" in name or "classifier" in name}
    assert set(kept) == {
        "base_model.model.bert.pooler.dense.weight",
        "base_model.model.bert.pooler.dense.bias",
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
    }
    assert {weight.dtype for weight in kept.values()} == {torch.float32}
    assert torch.equal(logits(load_tuned(asked, LABELS, tmp_path / "tuned")), logits(model))


def test_only_the_named_layers_get_an_adapter(tiny_model: Path) -> None:
    model = prepared(recipe(tiny_model, {"name": "lora", "target_modules": ["query", "attention.output.dense"]}))
    assert adapted(model) == {
        f"bert.encoder.layer.{layer}.attention.{name}" for layer in (0, 1) for name in ("self.query", "output.dense")
    }


def test_rank_stabilized_adapters_count_by_the_root_of_the_rank(tiny_model: Path) -> None:
    def scale(**options: Any) -> float:
        model = prepared(recipe(tiny_model, {"name": "lora", "rank": 4, "alpha": 6, **options}))
        layer = model.base_model.model.bert.encoder.layer[0].attention.self.query
        return float(layer.scaling["default"])

    assert (scale(), scale(rslora=True)) == (1.5, 3.0)


def test_dora_trains_the_length_of_every_weight_as_well(tiny_model: Path) -> None:
    plain, dora = (count(prepared(recipe(tiny_model, {"name": "lora", "dora": dora}))) for dora in (False, True))
    lengths = LAYERS * (5 * HIDDEN + INTERMEDIATE) + HIDDEN  # one a row of each weight, the pooler's too
    assert dora == ParameterCount(trainable=plain.trainable + lengths, total=plain.total + lengths)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["qerry"], "no layer below the head is 'qerry'; there are query, key, value, dense; did you mean 'query'?"),
        (
            ["query", "vlaue"],
            "no layer below the head is 'vlaue'; there are query, key, value, dense; did you mean 'value'?",
        ),
        (["classifier"], "no layer below the head is 'classifier'; there are query, key, value, dense"),
        (["uery"], "no layer below the head is 'uery'"),
        (["encoder"], "no layer below the head is 'encoder'"),
        (["LayerNorm"], "Target module LayerNorm"),
    ],
)
def test_a_layer_that_cannot_get_an_adapter(targets: list[str], words: str, tiny_model: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepared(recipe(tiny_model, {"name": "lora", "target_modules": targets}))
    assert str(caught.value).startswith("method.target_modules: ")
    assert words in str(caught.value)
