"""Method `lora`: low-rank adapters beside frozen weights; modules without pretrained weights are trained in full."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bentune.bundle.errors import InputError
from training.recipe.method import LoraMethod, QloraMethod
from training.tasks.base.load import Base
from training.train.methods.tuning import LoadBase, trained_whole, within

ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class Lora:
    """Tuning of PEFT adapters; the adapters and the fully trained modules are saved."""

    settings: LoraMethod | QloraMethod

    def prepare(self, base: Base) -> torch.nn.Module:
        """Add adapters to the base.

        Raises InputError when it lacks a named target module.
        """
        # An adapter beside random weights would learn little.
        whole = trained_whole(base)
        config = LoraConfig(
            # PEFT's wrapper for texts would pass `input_ids` to any other model.
            task_type=TaskType.SEQ_CLS if "input_ids" in base.model.dummy_inputs else None,
            r=self.settings.rank,
            lora_alpha=self.settings.alpha,
            lora_dropout=self.settings.dropout,
            use_rslora=self.settings.rslora,
            use_dora=self.settings.dora,
            target_modules=self._targets(base, whole),
            # PEFT finds the head by name, for some models only.
            modules_to_save=whole,
        )
        try:
            return cast("torch.nn.Module", get_peft_model(base.model, config))
        except ValueError as error:
            raise InputError(f"method.target_modules: {error}") from error

    def save(self, model: Any, directory: Path) -> None:
        """Write adapter/."""
        model.save_pretrained(directory / ADAPTER, safe_serialization=True)

    def load(self, load_base: LoadBase, directory: Path) -> PeftModel:
        """Load the base with the saved adapter beside it."""
        return PeftModel.from_pretrained(load_base(), directory / ADAPTER, is_trainable=False)

    def merged(self, load_base: LoadBase, directory: Path) -> PreTrainedModel:
        """Load the base and merge the saved adapter into its weights."""
        return cast("PreTrainedModel", self.load(load_base, directory).merge_and_unload(safe_merge=True))

    def _targets(self, base: Base, whole: list[str]) -> list[str]:
        # PEFT's "all-linear" would adapt the head as well.
        linear = [
            name
            for name, module in base.model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and not within(name, whole)
        ]
        targets = self.settings.target_modules
        if targets == "auto":
            if not linear:
                raise InputError("method.target_modules: the model has no linear layer; name the layers to adapt")
            return linear
        adaptable = [
            name
            for name, module in base.model.named_modules()
            if name and not within(name, whole) and not any(True for _ in module.children())
        ]
        for target in targets:
            # PEFT itself accepts a list in which only one name exists.
            if not any(name == target or name.endswith(f".{target}") for name in adaptable):
                names = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
                close = difflib.get_close_matches(target, names, n=1, cutoff=0.5)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise InputError(
                    f"method.target_modules: no layer below the head is {target!r}; there are {', '.join(names)}{hint}"
                )
        return targets
