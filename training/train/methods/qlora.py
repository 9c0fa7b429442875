"""Method `qlora`: adapters beside a 4-bit base (NF4, by bitsandbytes), merged into its dequantized float32 weights."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from bitsandbytes import functional
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from bentune.bundle.errors import InputError
from training.recipe.method import QloraMethod
from training.tasks.base.load import Base
from training.train.methods.lora import ADAPTER, Lora
from training.train.methods.tuning import LoadBase, trained_whole, within

NF4 = "nf4"


@dataclass(frozen=True, slots=True)
class Qlora:
    """LoRA on a quantized base. Its 4-bit weights follow from the base, so only the adapter is saved.

    Every linear layer is quantized, except the head and modules without pretrained weights. The layers compute in
    float32, so that `merged` differs from `load` by rounding alone.
    """

    settings: QloraMethod

    def prepare(self, base: Base) -> torch.nn.Module:
        """Quantize the base and add adapters.

        Raises InputError as Lora does, and for a model without a linear layer.
        """
        whole = trained_whole(base)
        if not any(True for _ in _linear(base.model, whole)):
            raise InputError("method: the model has no linear layer to hold in 4 bits; choose another method")
        self._quantize(base.model, whole)
        return Lora(self.settings).prepare(base)

    def save(self, model: Any, directory: Path) -> None:
        """Write adapter/."""
        Lora(self.settings).save(model, directory)

    def load(self, load_base: LoadBase, directory: Path) -> PeftModel:
        """Load the base in 4 bits with the saved adapter beside it."""
        return Lora(self.settings).load(lambda: self._quantize(load_base(), _whole(directory)), directory)

    def merged(self, load_base: LoadBase, directory: Path) -> PreTrainedModel:
        """Merge the saved adapter into the dequantized weights, float32.

        Quantizing the result again would change the weights.
        """
        return Lora(self.settings).merged(lambda: self._rounded(load_base(), _whole(directory)), directory)

    def _quantize(self, model: PreTrainedModel, whole: Collection[str]) -> PreTrainedModel:
        """Replace each linear layer by a 4-bit layer."""
        for name, layer in list(_linear(model, whole)):
            packed = Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=torch.float32,
                compress_statistics=self.settings.double_quantization,
                quant_type=NF4,
                device="meta",
            )
            packed.weight = Params4bit(
                layer.weight.data,
                requires_grad=False,
                compress_statistics=self.settings.double_quantization,
                quant_type=NF4,
                module=packed,
            )
            packed.bias = layer.bias
            packed.to("cpu")  # this quantizes the weights
            # On CPUs with AVX512-BF16, eval mode repacks the layer for a kernel that computes in bfloat16 and has no
            # gradient. It would stay repacked when training continues after an evaluation.
            packed.support_avx512bf16_for_cpu = False
            model.set_submodule(name, packed)
        model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT checks this attribute
        return model

    def _rounded(self, model: PreTrainedModel, whole: Collection[str]) -> PreTrainedModel:
        """Round each linear layer's weights to the values of its 4-bit weights."""
        for _, layer in _linear(model, whole):
            packed = functional.quantize_4bit(
                layer.weight.data, compress_statistics=self.settings.double_quantization, quant_type=NF4
            )
            layer.weight.data = functional.dequantize_4bit(*packed)
        return model


def _linear(model: torch.nn.Module, whole: Collection[str]) -> Iterator[tuple[str, torch.nn.Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not within(name, whole):
            yield name, module


def _whole(directory: Path) -> list[str]:
    return cast("list[str]", PeftConfig.from_pretrained(str(directory / ADAPTER)).modules_to_save)
