"""Loads the base model: its encoder from a hub, a path or a package, with a fresh head for the recipe's labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from service.errors import InputError
from service.hardware import visible_cores
from training.base_files import base_files_digest
from training.locate import locate
from training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Base:
    """A base model; `fresh` names the modules (head, pooler) that its checkpoint had no weights for."""

    model: PreTrainedModel
    fresh: list[str]


def quiet() -> None:
    """Hold torch to the cores that this process may use, and transformers to errors: that a head is fresh is known."""
    torch.set_num_threads(visible_cores())
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, in the fast form that can be served.

    Raises InputError when it has none, or the recipe asks for more tokens than the model takes.
    """
    place, options = _place(recipe.model)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, use_fast=True, **options)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise _missing(recipe.model, "tokenizer", error) from error
    if not tokenizer.is_fast:
        raise InputError(f"model: {recipe.model} has no tokenizer.json and none can be made from its files; add one")
    if tokenizer.pad_token is None:
        raise InputError(
            f"model: {recipe.model}: its tokenizer has no padding token; set one in its tokenizer_config.json"
        )
    most = min(tokenizer.model_max_length, getattr(_config(recipe), "max_position_embeddings", None) or 10**9)
    if recipe.max_tokens > most:
        raise InputError(f"max_tokens: {recipe.max_tokens} is more than the {most} that {recipe.model} takes")
    return tokenizer


def load_base(recipe: Recipe, labels: Sequence[str]) -> Base:
    """The base model with a head for `labels`; the same seed gives the same head.

    Only safetensors weights are read, never a pickle. Raises InputError when the model cannot be loaded.
    """
    place, options = _place(recipe.model)
    names = dict(enumerate(labels))
    set_seed(recipe.seed)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            place,
            num_labels=len(names),
            id2label=names,
            label2id={label: index for index, label in names.items()},
            problem_type="single_label_classification",
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError) as error:
        raise _missing(recipe.model, "model", error) from error
    untrained = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
    prefix = model.base_model_prefix + "."
    return Base(model, sorted({key.removeprefix(prefix).partition(".")[0] for key in untrained}))


def base_digest(recipe: Recipe, model: PreTrainedModel) -> str:
    """sha256 that stands for the base weights: over the files of a local model, over the commit of a hub's."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit is not None:
        return hashlib.sha256(f"{recipe.model}@{commit}".encode()).hexdigest()
    return base_files_digest(recipe.model)


def _config(recipe: Recipe) -> Any:
    place, options = _place(recipe.model)
    try:
        return AutoConfig.from_pretrained(place, **options)
    except (OSError, ValueError) as error:
        raise _missing(recipe.model, "config", error) from error


def _place(model: str) -> tuple[str, dict[str, Any]]:
    location = locate(model, "model")
    if location.path is not None and not location.path.is_dir():
        raise InputError(
            f"model: {model} is a file; give the folder with config.json, model.safetensors and tokenizer.json"
        )
    return str(location.path or location.name), {"trust_remote_code": False}


def _missing(model: str, part: str, error: Exception) -> InputError:
    path = locate(model, "model").path
    if path is None:
        return InputError(
            f"model: the {part} of {model} could not be loaded ({type(error).__name__}): there is no such folder here, "
            "and the hub did not give it. Check the name and the network, or give a local path or package:NAME/path"
        )
    wanted = {"tokenizer": "tokenizer.json", "model": "model.safetensors", "config": "config.json"}[part]
    return InputError(f"model: {path} has no usable {part} ({wanted} is needed): {str(error).splitlines()[0]}")
