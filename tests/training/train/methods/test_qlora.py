"""QLoRA: a base of 4 bits, gradients through it, and a merge onto the weights that the bits stand for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from tuning import LABELS, disturb, logits, make_family, prepared, recipe, saved, trained_names

from bentune.bundle.errors import InputError
from training.tasks.base.load import load_base
from training.train.methods import count, load_tuned, merge_tuned


def quantized(model: torch.nn.Module) -> set[str]:
    names = {name for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    return {name.removeprefix("base_model.model.").removesuffix(".base_layer") for name in names}


def bytes_of(model: torch.nn.Module) -> int:
    """Return the bytes of the encoder's linear weights.

    The scales of those that are quantized are included.
    """
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and "classifier" not in name:
            total += module.weight.numel() * module.weight.element_size()
            if isinstance(module, Linear4bit):
                total += sum(value.numel() * value.element_size() for value in scales(module))
    return total


def scales(module: Linear4bit) -> list[torch.Tensor]:
    state = module.weight.quant_state
    return [state.absmax, state.state2.absmax] if state.nested else [state.absmax]


def test_every_linear_layer_but_the_head_is_held_in_four_bits(tiny_model: Path) -> None:
    base = load_base(recipe(tiny_model, "full"), LABELS).model
    linear = {name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    model = prepared(recipe(tiny_model, "qlora"))
    assert quantized(model) == linear - {"classifier"}
    assert 6 < bytes_of(base) / bytes_of(model) < 8
    layer = model.base_model.model.bert.encoder.layer[0].attention.self.query.base_layer
    assert (layer.weight.quant_type, layer.weight.dtype, layer.compute_dtype) == ("nf4", torch.uint8, torch.float32)


@pytest.mark.parametrize("double", [True, False])
def test_double_quantization_holds_the_scales_in_eight_bits(double: bool, tiny_model: Path) -> None:
    model = prepared(recipe(tiny_model, {"name": "qlora", "double_quantization": double}))
    layer = model.base_model.model.bert.encoder.layer[0].attention.self.query.base_layer
    assert layer.weight.quant_state.nested is double
    assert layer.weight.quant_state.absmax.dtype == (torch.uint8 if double else torch.float32)


def test_weights_are_counted_and_not_their_bytes(tiny_model: Path) -> None:
    qlora, lora = (prepared(recipe(tiny_model, name)) for name in ("qlora", "lora"))
    assert count(qlora) == count(lora)
    assert trained_names(qlora) == trained_names(lora)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Return the gradients of one training step's loss.

    They are the same each time, dropout included.
    """
    ids = torch.tensor([[2, 5, 17, 8, 3], [2, 30, 31, 9, 3]])
    torch.manual_seed(0)
    model.zero_grad()
    model.train()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 1])).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}


def test_an_evaluation_changes_nothing_in_the_training_after_it(tiny_model: Path) -> None:
    """On some CPUs bitsandbytes would swap the layers.

    The new layers would be in bfloat16 and without a gradient.
    """
    model = prepared(recipe(tiny_model, "qlora"))
    disturb(model)
    before = gradients(model)
    assert all(gradient.any() for gradient in before.values())
    logits(model)
    after = gradients(model)
    assert all(torch.equal(after[name], gradient) for name, gradient in before.items())


@pytest.mark.parametrize(
    "options", [{}, {"double_quantization": False}, {"dora": True, "rslora": True}, {"target_modules": ["query"]}]
)
def test_the_merged_model_is_the_base_of_four_bits_with_its_adapter(
    options: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    asked = recipe(tiny_model, {"name": "qlora", **options})
    model = saved(asked, tmp_path / "tuned")
    loaded = load_tuned(asked, LABELS, tmp_path / "tuned")
    assert quantized(loaded) == quantized(model)
    assert torch.equal(logits(loaded), logits(model))
    merged = merge_tuned(asked, LABELS, tmp_path / "tuned")
    assert quantized(merged) == set()
    assert {weight.dtype for weight in merged.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(merged), logits(loaded), atol=1e-5, rtol=0)


def test_merging_onto_the_base_as_it_was_would_not_be_the_same(tiny_model: Path, tmp_path: Path) -> None:
    """So the comparison above would see it."""
    asked = recipe(tiny_model, "qlora")
    model = saved(asked, tmp_path / "tuned")
    onto_base = merge_tuned(recipe(tiny_model, "lora"), LABELS, tmp_path / "tuned")
    assert (logits(onto_base) - logits(model)).abs().max() > 1e-3


def test_a_model_without_linear_layers_is_refused(tmp_path: Path) -> None:
    asked = recipe(make_family("gpt2", tmp_path / "model"), "qlora")
    with pytest.raises(InputError, match="method: the model has no linear layer to hold in 4 bits"):
        prepared(asked)
