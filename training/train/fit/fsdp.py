"""FSDP: training with weights sharded over the processes, as requested by `accelerate launch`."""

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
from training.train.fit.arguments import PRECISION_VARIABLE, precision_for
from training.train.fit.deepspeed import is_checkpoint

WEIGHTS = "pytorch_model_fsdp.bin"
FSDP, DEEPSPEED, WHOLE = "FSDP", "DeepSpeed", "whole weights in each process"


def fsdp_requested(environment: Mapping[str, str] = os.environ) -> bool:
    """Return True where `accelerate launch --use_fsdp` started the processes."""
    return environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def require_shardable(recipe: Recipe, environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError when recipe and options of `accelerate launch` disagree.

    Call it before loading the model.
    """
    launched = environment.get(PRECISION_VARIABLE, "no")
    if launched not in {"no", precision_for(recipe.train.precision)}:
        raise InputError(
            f"--mixed_precision {launched}: the recipe's train.precision decides, here "
            f"{precision_for(recipe.train.precision)}; set that, and leave the option out"
        )
    if not fsdp_requested(environment):
        return
    version = environment.get("FSDP_VERSION", "1")
    if version != "2":
        raise InputError(f"--fsdp_version {version} is not supported; start with --fsdp_version 2")
    if recipe.method.name == "qlora":
        raise InputError("method: qlora: FSDP cannot shard 4-bit weights; choose lora, or use torchrun")
    if recipe.train.gradient_checkpointing and _on(environment, "FSDP_ACTIVATION_CHECKPOINTING"):
        raise InputError(
            "train.gradient_checkpointing: --fsdp_activation_checkpointing does the same; leave one of them out"
        )


def require_same_sharding(checkpoint: Path, recipe: Recipe, environment: Mapping[str, str] = os.environ) -> None:
    """Raise InputError for a checkpoint in the format of another kind of sharding."""
    was = FSDP if (checkpoint / WEIGHTS).is_file() else DEEPSPEED if is_checkpoint(checkpoint) else WHOLE
    now = FSDP if fsdp_requested(environment) else WHOLE if recipe.train.deepspeed is None else DEEPSPEED
    if was != now:
        raise InputError(
            f"{checkpoint} was written with {was}, and this training was started with {now}: start it as before, or "
            "from the beginning with `bentune train --force`"
        )


def shard(state: AcceleratorState) -> None:
    """Make accelerate shard the weights, on CPUs too, and write unsharded checkpoints.

    accelerate 1.15 enables FSDP on accelerators only: AcceleratorState.__init__ has a list of distributed types without
    MULTI_CPU, and for other types silently trains with unsharded weights. The sharding itself works over gloo. Rank 0
    writes an unsharded checkpoint, which any number of processes can read without a pickle.
    """
    if state.distributed_type is DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        if state.mixed_precision != "no":
            state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
        # Later states copy the type from PartialState.
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    plugin = state.fsdp_plugin
    plugin.state_dict_config = plugin.optim_state_dict_config = None  # else it keeps those of the previous type
    plugin.set_state_dict_type("FULL_STATE_DICT")


def gather(model: torch.nn.Module, *, keep: bool) -> None:
    """Gather the weights that FSDP has sharded; every process must call this.

    With `keep` the model can then be saved, but no longer run. A model that is not sharded is unchanged.
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
