"""Registry of fine-tuning methods, and the calls that the stages make: prepare, save, load and merge."""

from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from bentune.bundle.errors import InputError
from bentune.bundle.files import Frozen
from training.pipeline.layout import TrainFiles
from training.recipe.method import BiasMethod, FreezeMethod, FullMethod, HeadMethod, LoraMethod, Method, QloraMethod
from training.recipe.recipe import Recipe
from training.tasks.base.load import Base, base_digest, load_base
from training.train.methods.bias import Bias
from training.train.methods.freeze import Freeze
from training.train.methods.full import Full
from training.train.methods.head import Head
from training.train.methods.lora import Lora
from training.train.methods.qlora import Qlora
from training.train.methods.tuning import Tuning


class UsedBase(Frozen):
    """base.json: the base model that was tuned, with its digest; `warm_start` is a directory of the parent's run.

    `pad_token_id` is the tokenizer's padding token, which the config may lack.
    """

    source: str
    sha256: str
    warm_start: str | None = None
    pad_token_id: int | None = None


def prepare(base: Base, method: Method) -> torch.nn.Module:
    """Prepare a base model for training.

    Raises InputError where the method does not fit the model.
    """
    return _tuning(method).prepare(base)


def save_tuned(model: torch.nn.Module, method: Method, directory: Path) -> None:
    """Write the trained weights as safetensors: adapter, some weights, or model."""
    _tuning(method).save(model, directory)


def load_tuned(recipe: Recipe, labels: list[str], directory: Path) -> PreTrainedModel | PeftModel:
    """Load the trained model: the base with adapter or tuned weights, or the model."""
    return _tuning(recipe.saved_method).load(partial(load_same_base, recipe, labels, directory), directory)


def merge_tuned(recipe: Recipe, labels: list[str], directory: Path) -> PreTrainedModel:
    """Load the trained model in the base's architecture.

    Raises ValueError for weights that are not finite.
    """
    return _tuning(recipe.saved_method).merged(partial(load_same_base, recipe, labels, directory), directory)


def load_same_base(recipe: Recipe, labels: list[str], directory: Path) -> PreTrainedModel:
    """Load the base that was tuned, with a head for `labels`.

    After a warm start it is the merged model of the parent's run. Raises InputError when its files, or its commit on
    the hub, have changed since.
    """
    base = UsedBase.model_validate_json(TrainFiles(directory).base.read_bytes())
    tuned = recipe.model_copy(update={"model": base.warm_start}) if base.warm_start is not None else recipe
    model = load_base(tuned, labels).model
    if base_digest(tuned, model) != base.sha256:
        raise InputError(
            f"model: {tuned.model} has changed since it was tuned: run `bentune train` again, or restore its files"
        )
    if base.pad_token_id is not None:
        model.config.pad_token_id = base.pad_token_id
    return model


def _tuning(method: Method) -> Tuning:
    match method:
        case FullMethod():
            return Full()
        case LoraMethod():
            return Lora(method)
        case QloraMethod():
            return Qlora(method)
        case BiasMethod():
            return Bias()
        case FreezeMethod():
            return Freeze(method)
        case HeadMethod():
            return Head()
