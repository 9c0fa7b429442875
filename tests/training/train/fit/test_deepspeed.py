"""DeepSpeed's configuration in a recipe: read from a file or given, checked before anything is trained."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from bentune.bundle.errors import InputError
from training.recipe.recipe import Recipe
from training.train.fit.deepspeed import configuration, require_deepspeed

TWO = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "here"}


def recipe(deepspeed: Any = None, **more: Any) -> Recipe:
    base = {"name": "x", "task": "text-classification", "model": "m", "data": {"source": "s"}}
    return Recipe.model_validate(base | more | {"train": {"deepspeed": deepspeed}})


def test_a_file_is_read_into_the_recipe_and_the_recipes_values_are_left_to_trainer(tmp_path: Path) -> None:
    given = {"zero_optimization": {"stage": 2}, "gradient_clipping": "auto", "fp16": {"loss_scale": 0}}
    (tmp_path / "zero.json").write_text(json.dumps(given))
    found = recipe(str(tmp_path / "zero.json"))
    assert found.train.deepspeed == given
    assert configuration(found) == {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": 2},
        "fp16": {"loss_scale": 0, "enabled": "auto"},
        "bf16": {"enabled": "auto"},
    }
    assert configuration(recipe()) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"zero_optimisation": {"stage": 2}}, "did you mean 'zero_optimization'"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer: the recipe sets it"),
        ({"train_batch_size": 8}, "train_batch_size: the recipe sets it; leave it out or give 'auto'"),
        ({"bf16": {"enabled": True}}, "bf16.enabled: train.precision sets it"),
        ("/none/zero.json", "/none/zero.json cannot be read: No such file"),
    ],
)
def test_what_is_wrong_with_it_is_named(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe(given)


@pytest.mark.parametrize(("content", "said"), [("[" * 100_000, "is not JSON"), ("[]", "no JSON object")])
def test_a_file_of_something_else_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_text(content)
    with pytest.raises(ValidationError, match=said):
        recipe(str(tmp_path / "zero.json"))


def test_without_the_package_it_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    require_deepspeed(recipe(), {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"the package `deepspeed` is not installed.*\[deepspeed\]"):
        require_deepspeed(recipe({}), {})


def test_what_does_not_go_with_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with pytest.raises(InputError, match="--use_deepspeed: set train.deepspeed in the recipe"):
        require_deepspeed(recipe(), {"ACCELERATE_USE_DEEPSPEED": "true"})
    with pytest.raises(InputError, match="DeepSpeed and FSDP"):
        require_deepspeed(recipe({}), {"ACCELERATE_USE_FSDP": "true"})
    with pytest.raises(InputError, match="method: qlora is not supported with DeepSpeed"):
        require_deepspeed(recipe({}, method="qlora"), {})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="DeepSpeed with 2 processes needs GPUs"):
        require_deepspeed(recipe({}), TWO)


@pytest.mark.parametrize(
    ("zero", "said"),
    [
        ({}, "stage: None shards nothing; give 1, 2 or 3"),
        ({"stage": 2, "overlap_com": True}, "overlap_com: DeepSpeed has no such setting"),
        ({"stage": 2, "reduce_bucket_size": "many"}, "reduce_bucket_size: Input should be"),
    ],
)
def test_what_is_wrong_with_zero_is_named(zero: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's own settings class decides what is wrong.

    A small class of its kind stands for it here.
    """

    class DeepSpeedZeroConfig(BaseModel):
        stage: int = 0
        overlap_comm: bool = False
        reduce_bucket_size: int = 1

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    parts = ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", "deepspeed.runtime.zero.config")
    for part in parts:
        monkeypatch.setitem(sys.modules, part, SimpleNamespace(DeepSpeedZeroConfig=DeepSpeedZeroConfig))
    require_deepspeed(recipe({"zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}}), {})
    with pytest.raises(InputError, match=said):
        require_deepspeed(recipe({"zero_optimization": zero}), {})
