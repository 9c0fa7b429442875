"""What is tuned: counts, the layers that get an adapter, and that what was saved is what was trained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_model
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from service.contract import write_json
from service.errors import InputError
from training.base import base_digest, load_base
from training.methods import ParameterCount, count, load_same_base, load_tuned, prepare, save_tuned
from training.recipe import Recipe

LABELS = ["animal", "food", "tool"]
HIDDEN, INTERMEDIATE, LAYERS = 32, 64, 2
HEAD = HIDDEN * 3 + 3
POOLER = HIDDEN * HIDDEN + HIDDEN


def recipe(model: Path, method: Any) -> Recipe:
    least = {"name": "x", "task": "text-classification", "data": {"source": "s"}, "max_tokens": 24}
    return Recipe.model_validate(least | {"model": str(model), "method": method})


def prepared(asked: Recipe) -> Any:
    return prepare(load_base(asked, LABELS), asked.method)


def adapter(rank: int, inputs: int, outputs: int) -> int:
    return rank * (inputs + outputs)


def adapted(model: torch.nn.Module) -> set[str]:
    """Names of the layers that have an adapter, as the base model calls them."""
    names = {name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}
    return {name.removeprefix("base_model.model.") for name in names}


def disturb(model: torch.nn.Module) -> None:
    """Give every trainable weight another value, as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.1)


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([[2, 5, 17, 8, 3], [2, 30, 31, 9, 3]])
    with torch.inference_mode():
        result: torch.Tensor = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return result


def saved(asked: Recipe, directory: Path) -> Any:
    """Prepare, disturb and save a model as the train stage does; returns it."""
    base = load_base(asked, LABELS)
    digest = base_digest(asked, base.model)
    model = prepare(base, asked.method)
    disturb(model)
    directory.mkdir(exist_ok=True)
    save_tuned(model, asked.method, directory)
    write_json(directory / "base.json", {"sha256": digest})
    return model


@pytest.fixture
def masked(tmp_path: Path) -> Path:
    """A masked language model: its checkpoint has no pooler."""
    model = make_model(tmp_path / "masked")
    BertForMaskedLM(BertConfig.from_pretrained(model)).save_pretrained(model)
    return model


def test_full_tuning_trains_every_weight(tiny_model: Path) -> None:
    model = prepared(recipe(tiny_model, "full"))
    total = sum(weight.numel() for weight in model.parameters())
    assert count(model) == ParameterCount(trainable=total, total=total)


@pytest.mark.parametrize("rank", [1, 4])
def test_lora_trains_its_adapters_and_the_head(rank: int, tiny_model: Path) -> None:
    whole = count(prepared(recipe(tiny_model, "full"))).total
    model = prepared(recipe(tiny_model, {"name": "lora", "rank": rank}))
    layer = 4 * adapter(rank, HIDDEN, HIDDEN) + 2 * adapter(rank, HIDDEN, INTERMEDIATE)
    adapters = LAYERS * layer + adapter(rank, HIDDEN, HIDDEN)  # and the pooler's
    assert count(model) == ParameterCount(trainable=adapters + HEAD, total=whole + adapters)


def test_every_linear_layer_but_the_head_gets_an_adapter(tiny_model: Path) -> None:
    base = load_base(recipe(tiny_model, "full"), LABELS).model
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    assert adapted(prepared(recipe(tiny_model, "lora"))) == linear - {"classifier"}


def test_a_head_that_the_checkpoint_has_is_trained_whole_as_well(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    BertForSequenceClassification(BertConfig.from_pretrained(model, num_labels=3)).save_pretrained(model)
    asked = recipe(model, "lora")
    assert load_base(asked, LABELS).fresh == []
    tuned = prepared(asked)
    assert "classifier" not in {name.rpartition(".")[2] for name in adapted(tuned)}
    assert any(
        "classifier.modules_to_save" in name and weight.requires_grad for name, weight in tuned.named_parameters()
    )


def test_a_fresh_pooler_is_trained_whole_and_saved(masked: Path, tmp_path: Path) -> None:
    asked = recipe(masked, {"name": "lora", "rank": 2})
    model = saved(asked, tmp_path / "tuned")
    assert not any("pooler" in name for name in adapted(model))
    adapters = LAYERS * (4 * adapter(2, HIDDEN, HIDDEN) + 2 * adapter(2, HIDDEN, INTERMEDIATE))
    assert count(model).trainable == adapters + HEAD + POOLER
    weights = load_file(tmp_path / "tuned/adapter/adapter_model.safetensors")
    assert {name for name in weights if "pooler" in name or "classifier" in name} == {
        "base_model.model.bert.pooler.dense.weight",
        "base_model.model.bert.pooler.dense.bias",
        "base_model.model.classifier.weight",
        "base_model.model.classifier.bias",
    }
    assert torch.equal(logits(load_tuned(asked, LABELS, tmp_path / "tuned")), logits(model))


@pytest.mark.parametrize("method", ["full", "lora", {"name": "lora", "rank": 2, "target_modules": ["query", "value"]}])
def test_what_was_saved_is_what_was_trained(method: Any, tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, method)
    untrained = logits(prepared(asked))
    model = saved(asked, tmp_path / "tuned")
    loaded = load_tuned(asked, LABELS, tmp_path / "tuned")
    assert torch.equal(logits(loaded), logits(model))
    assert (logits(loaded) - untrained).abs().max() > 0.01
    assert not any(path.suffix in (".bin", ".pt", ".pth") for path in (tmp_path / "tuned").rglob("*"))
    if method == "full":
        assert json.loads((tmp_path / "tuned/model/config.json").read_text())["id2label"] == {
            str(index): label for index, label in enumerate(LABELS)
        }


def test_only_the_named_layers_get_an_adapter(tiny_model: Path) -> None:
    model = prepared(recipe(tiny_model, {"name": "lora", "target_modules": ["query", "attention.output.dense"]}))
    assert adapted(model) == {
        f"bert.encoder.layer.{layer}.attention.{name}" for layer in (0, 1) for name in ("self.query", "output.dense")
    }


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


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_adapter_is_never_put_beside_another_base(method: str, tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    asked = recipe(model, method)
    saved(asked, tmp_path / "tuned")
    make_model(model, seed=1)
    with pytest.raises(InputError) as caught:
        load_same_base(asked, LABELS, tmp_path / "tuned")
    assert str(caught.value) == (
        f"model: {model} is not what it was when it was tuned: run `bentune train` again, or put it back"
    )
    if method == "lora":
        with pytest.raises(InputError):
            load_tuned(asked, LABELS, tmp_path / "tuned")
    else:
        assert load_tuned(asked, LABELS, tmp_path / "tuned") is not None
