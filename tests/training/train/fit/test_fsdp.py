"""FSDP as `accelerate launch` asks for it: what is refused, and that accelerate's plugin is what is trained with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pair import launched_with

from bentune.bundle.errors import InputError
from training.recipe.recipe import Recipe
from training.train.fit import fsdp
from training.train.fit.fsdp import gather, require_same_sharding, require_shardable

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def recipe(**more: Any) -> Recipe:
    base = {"name": "x", "task": "text-classification", "model": "m", "data": {"source": "s"}}
    return Recipe.model_validate(base | more)


def test_the_launcher_asks_for_it() -> None:
    assert fsdp.fsdp_requested(launched_with("--use_fsdp", "--fsdp_version", "2"))
    assert not fsdp.fsdp_requested({})
    require_shardable(recipe(method="lora"), launched_with("--use_fsdp", "--fsdp_version", "2"))


@pytest.mark.parametrize(
    ("environment", "more", "said"),
    [
        (FSDP | {"FSDP_VERSION": "1"}, {}, "--fsdp_version 1 is not supported"),
        (FSDP, {"method": "qlora"}, "FSDP cannot shard 4-bit weights"),
        (
            FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"},
            {"train": {"gradient_checkpointing": True}},
            "leave one of them out",
        ),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, {}, "--mixed_precision fp16: the recipe's train.precision"),
    ],
)
def test_what_cannot_be_sharded_is_refused(environment: dict[str, str], more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        require_shardable(recipe(**more), environment)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    plain, deepspeed = recipe(), recipe(train={"deepspeed": {}})
    require_same_sharding(tmp_path, plain, {})
    for now, environment, said in ((plain, FSDP, "started with FSDP"), (deepspeed, {}, "started with DeepSpeed")):
        with pytest.raises(InputError, match=f"written with whole weights in each process.*{said}"):
            require_same_sharding(tmp_path, now, environment)
    (tmp_path / "latest").touch()
    require_same_sharding(tmp_path, deepspeed, {})
    (tmp_path / fsdp.WEIGHTS).touch()
    require_same_sharding(tmp_path, plain, FSDP)
    with pytest.raises(InputError, match="written with FSDP.*started with whole weights"):
        require_same_sharding(tmp_path, plain, {})


def test_a_model_that_is_not_sharded_stays_as_it_is() -> None:
    model = torch.nn.Linear(2, 2)
    weight = model.weight
    gather(model, keep=True)
    assert model.weight is weight


def test_accelerate_still_knows_no_fsdp_on_cpus() -> None:
    """`shard` sets what accelerate would have set.

    When this test fails, that may be left out.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    before = dict(PartialState._shared_state)
    PartialState._shared_state.clear()
    AcceleratorState._reset_state()
    PartialState._shared_state.update(
        SimpleNamespace(
            distributed_type=DistributedType.MULTI_CPU, device=torch.device("cpu"), _cpu=True, backend="gloo"
        ).__dict__
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ACCELERATE_USE_FSDP", "true")
            patch.setenv("FSDP_VERSION", "2")
            dynamo = SimpleNamespace(backend="NO")
            state = AcceleratorState(cpu=True, dynamo_plugin=dynamo, _from_accelerator=True)
            assert state.distributed_type is DistributedType.MULTI_CPU
            fsdp.shard(state)
        assert state.is_fsdp2
        assert AcceleratorState(_from_accelerator=True).is_fsdp2  # asked again
        assert "FULL" in str(state.fsdp_plugin.state_dict_type)
    finally:
        AcceleratorState._reset_state()
        PartialState._shared_state.clear()
        PartialState._shared_state.update(before)
