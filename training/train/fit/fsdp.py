"""FSDP: a model whose weights are spread over the processes while it is trained, as `accelerate launch` asks for it."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from bentune.bundle.errors import InputError
from training.recipe.recipe import Recipe
from training.train.fit.deepspeed import is_checkpoint
from training.train.fit.precision import TOLD, precision_for

WEIGHTS = "pytorch_model_fsdp.bin"
FSDP, DEEPSPEED, WHOLE = "FSDP", "DeepSpeed", "whole weights in each process"


def asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the processes were started by `accelerate launch --use_fsdp`."""
    return environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def require_shardable(recipe: Recipe, environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError, before anything is loaded, when a recipe cannot be trained as `accelerate launch` was told."""
    told = environment.get(TOLD, "no")
    if told not in {"no", precision_for(recipe.train.precision)}:
        raise InputError(
            f"--mixed_precision {told}: the recipe's train.precision says what is computed in, here "
            f"{precision_for(recipe.train.precision)}; set that, and leave the option out"
        )
    if not asked_for(environment):
        return
    version = environment.get("FSDP_VERSION", "1")
    if version != "2":
        raise InputError(f"--fsdp_version {version}: only the second is trained with; start with --fsdp_version 2")
    if recipe.method.name == "qlora":
        raise InputError(
            "method: weights of 4 bits cannot be spread over processes by FSDP; choose lora, or use torchrun"
        )
    if recipe.train.gradient_checkpointing and _on(environment, "FSDP_ACTIVATION_CHECKPOINTING"):
        raise InputError(
            "train.gradient_checkpointing: --fsdp_activation_checkpointing does the same; leave one of them out"
        )


def require_same_kind(checkpoint: Path, recipe: Recipe, environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError when a checkpoint cannot be gone on from: FSDP and DeepSpeed write it in forms of their own."""
    was = FSDP if (checkpoint / WEIGHTS).is_file() else DEEPSPEED if is_checkpoint(checkpoint) else WHOLE
    now = FSDP if asked_for(environment) else WHOLE if recipe.train.deepspeed is None else DEEPSPEED
    if was != now:
        raise InputError(
            f"{checkpoint} was written with {was}, and this training was started with {now}: start it as before, or "
            "from the beginning with `bentune train --force`"
        )


def shard(state: AcceleratorState) -> None:
    """Have accelerate spread the weights, on CPUs too, and write checkpoints whole.

    accelerate 1.15 knows FSDP on accelerators alone: AcceleratorState.__init__ looks for it where the distributed type
    is one of a list without MULTI_CPU, and trains with whole weights otherwise without a word. What it does then works
    over gloo as it is. A whole checkpoint is written by the leader, read without a pickle, and by any number of
    processes.
    """
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        if state.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
        # Whoever asks for the state again has what the other one says.
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    plugin = state.fsdp_plugin
    plugin.state_dict_config = plugin.optim_state_dict_config = None  # which it would keep from the type before
    plugin.set_state_dict_type("FULL_STATE_DICT")


def make_whole(model: torch.nn.Module, *, keep: bool) -> None:
    """Gather a model's weights, in every process at once; where `keep` is set it can then be saved, but no longer run.

    A model that is not sharded stays as it is.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, DTensor):
                whole = weight.full_tensor()
                if keep:
                    setattr(module, name, torch.nn.Parameter(whole.cpu(), requires_grad=weight.requires_grad))


def _on(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() == "true"
