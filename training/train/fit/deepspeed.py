"""DeepSpeed under Trainer: its configuration, its requirements and its sharded weights."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bentune.bundle.errors import InputError
from training.pipeline.workers import place
from training.recipe.deepspeed import AUTO, RECIPES
from training.recipe.recipe import Recipe

KEY = "train.deepspeed"
# This file names the newest state (deepspeed 0.19, DeepSpeedEngine.save_checkpoint).
NEWEST = "latest"


def configuration(recipe: Recipe) -> dict[str, Any] | None:
    """Build the DeepSpeed configuration for Trainer; None without DeepSpeed.

    Values that the recipe sets elsewhere are `auto`, which Trainer fills in.
    """
    given = recipe.train.deepspeed
    if given is None:
        return None
    precision = {name: {**given.get(name, {}), "enabled": AUTO} for name in ("bf16", "fp16")}
    return {**dict.fromkeys(RECIPES, AUTO), **given, **precision}


def require_deepspeed(recipe: Recipe, environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError when the recipe's DeepSpeed settings cannot work.

    Call it before loading the model.
    """
    if recipe.train.deepspeed is None:
        if environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
            raise InputError(f"--use_deepspeed: set {KEY} in the recipe, and start the processes with torchrun")
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise InputError(f"{KEY}: the package `deepspeed` is not installed; install Bentune with the extra [deepspeed]")
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise InputError(f"{KEY}: DeepSpeed and FSDP both shard the weights; leave one of them out")
    if recipe.method.name == "qlora" or recipe.prune is not None:
        what = "method: qlora" if recipe.prune is None else "prune"
        raise InputError(f"{what} is not supported with DeepSpeed; leave {KEY} out")
    here = place(environment)
    if here.world > 1 and not torch.cuda.is_available():
        # accelerate 1.15, PartialState.__init__: without a GPU there is no backend, and each process trains alone.
        raise InputError(f"{KEY}: DeepSpeed with {here.world} processes needs GPUs, and this machine has none")
    with stdout_kept(recipe):
        _require_known(recipe.train.deepspeed.get("zero_optimization", {}))


@contextlib.contextmanager
def stdout_kept(recipe: Recipe) -> Iterator[None]:
    """Redirect DeepSpeed's output to stderr, because stdout may be one JSON object."""
    with contextlib.nullcontext() if recipe.train.deepspeed is None else contextlib.redirect_stdout(sys.stderr):
        yield


def is_checkpoint(checkpoint: Path) -> bool:
    """Return True for a checkpoint that DeepSpeed wrote."""
    return (checkpoint / NEWEST).is_file()


def load(model: torch.nn.Module, checkpoint: Path) -> None:
    """Load a sharded checkpoint into a model that is not trained further."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    model.load_state_dict(get_fp32_state_dict_from_zero_checkpoint(str(checkpoint)), strict=False)


def gather(model: torch.nn.Module, *, keep: bool) -> None:
    """Gather the weights that ZeRO 3 has sharded; every process must call this.

    With `keep` the model then holds them in float32, ready to be saved.
    """
    from deepspeed import zero

    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            with zero.GatheredParameters([weight] if hasattr(weight, "ds_id") else []):
                if keep:
                    whole = weight.detach().float().cpu().clone()
                    setattr(module, name, torch.nn.Parameter(whole, requires_grad=weight.requires_grad))


def _require_known(zero: Any) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    if not isinstance(zero, dict):
        raise InputError(f"{KEY}.zero_optimization: give a mapping")
    if zero.get("stage") not in {1, 2, 3}:
        raise InputError(f"{KEY}.zero_optimization.stage: {zero.get('stage')} shards nothing; give 1, 2 or 3")
    unknown = sorted(zero.keys() - DeepSpeedZeroConfig.model_fields.keys())
    aliases = {field.alias for field in DeepSpeedZeroConfig.model_fields.values()}
    unknown = [key for key in unknown if key not in aliases]
    if unknown:
        raise InputError(f"{KEY}.zero_optimization.{unknown[0]}: DeepSpeed has no such setting; remove it")
    try:
        DeepSpeedZeroConfig(**{key: value for key, value in zero.items() if value != AUTO})
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, first["loc"]))
        raise InputError(f"{KEY}.zero_optimization.{path}: {first['msg']}") from error
