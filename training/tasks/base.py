"""Loads the base model: its encoder from a hub, a path or a package, with a fresh head for the recipe's labels."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from bentune.bundle.errors import InputError
from bentune.bundle.hardware import visible_cores
from training.pipeline.fingerprints import base_files_digest
from training.recipe.recipe import Recipe
from training.sources.hub import offline, why_not
from training.sources.locate import locate
from training.tasks.classifier import auto_model, loads
from training.tasks.image.processor import FILE as PREPROCESSOR
from training.tasks.image.processor import ImageProcessor
from training.tasks.registry import target_of, task_of
from training.tasks.student import with_fewer_layers

MERGE_FIRST = "merge it into its base model first, and give the merged model"
OFFSET_POSITIONS = re.compile("roberta|camembert")


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
    """The base model's tokenizer, in the fast form that can be served, cutting and padding nothing by itself.

    Raises InputError when it has none, or the recipe asks for more tokens than the model takes.
    """
    place, options = _place(recipe.model)
    config = _config(recipe)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, use_fast=True, **options)
    except Exception as error:  # the Rust side raises bare Exception
        raise _missing(recipe.model, "tokenizer", error) from error
    if not tokenizer.is_fast:
        raise InputError(f"model: {recipe.model} has no tokenizer.json and none can be made from its files; add one")
    if tokenizer.pad_token is None:
        raise InputError(
            f"model: {recipe.model}: its tokenizer has no padding token; set one in its tokenizer_config.json"
        )
    vocabulary = getattr(config, "vocab_size", None) or len(tokenizer)
    if len(tokenizer) > vocabulary:
        raise InputError(
            f"model: {recipe.model}: its tokenizer has {len(tokenizer)} tokens and the model {vocabulary}: "
            "they do not belong together"
        )
    most = min(tokenizer.model_max_length, _positions(config, tokenizer))
    if recipe.max_tokens > most:
        raise InputError(f"max_tokens: {recipe.max_tokens} is more than the {most} that {recipe.model} takes")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def load_image_processor(recipe: Recipe) -> ImageProcessor:
    """The base model's image processor. Raises InputError when it has none, or one that cannot be served."""
    place, options = _place(recipe.model)
    config = _config(recipe)
    if not loads(config, task_of(recipe)):
        raise InputError(
            f"model: {recipe.model} is a {config.model_type}, which classifies no images; choose one that does, as ViT"
        )
    try:
        return ImageProcessor.of(place, **options)
    except InputError:
        raise
    except Exception as error:  # what a processor's own code raises on wrong values
        raise _missing(recipe.model, "image processor", error) from error


def load_base(recipe: Recipe, labels: Sequence[str]) -> Base:
    """The base model with a head for `labels`; the same seed gives the same head.

    Only safetensors weights are read, never a pickle, and no code of the model's own is run. Raises InputError when the
    model cannot be loaded.
    """
    place, options = _place(recipe.model)
    _config(recipe)
    names = dict(enumerate(labels))
    set_seed(recipe.seed)
    try:
        model, info = auto_model(task_of(recipe)).from_pretrained(
            place,
            num_labels=len(names),
            id2label=names,
            label2id={label: index for index, label in names.items()},
            problem_type=target_of(recipe).problem_type,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # safetensors and the model's own code raise what they like
        raise _missing(recipe.model, "model", error) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(f"model: {recipe.model} is an adapter: {MERGE_FIRST}")
    missing, mismatched = set(info["missing_keys"]), set(info["mismatched_keys"])
    _require_weights(recipe.model, model, missing, mismatched)
    prefix = model.base_model_prefix + "."
    if recipe.distill is not None and recipe.distill.student_layers is not None:
        model = with_fewer_layers(model, recipe.distill.student_layers)
    return Base(model, sorted({key.removeprefix(prefix).partition(".")[0] for key in missing | mismatched}))


def class_names(recipe: Recipe) -> list[str]:
    """The labels of the recipe's model, a classifier, in the order of its logits. Raises InputError."""
    names = _config(recipe).id2label
    return [names[index] for index in sorted(names)]


def base_digest(recipe: Recipe, model: PreTrainedModel) -> str:
    """sha256 that stands for the base weights: over the files of a local model, over the commit of a hub's."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit is not None:
        return hashlib.sha256(f"{recipe.model}@{commit}".encode()).hexdigest()
    return base_files_digest(recipe.model)


def _require_weights(name: str, model: PreTrainedModel, missing: set[str], mismatched: set[str]) -> None:
    """Refuse an encoder that transformers would fill up with random weights without a word.

    A part of it may be missing as a whole, as BERT's pooler is from a masked language model; nothing else may.
    """
    prefix = model.base_model_prefix + "."
    parts: dict[str, list[str]] = {}
    for weight in model.state_dict():
        if weight.startswith(prefix):
            parts.setdefault(weight.removeprefix(prefix).partition(".")[0], []).append(weight)
    wrong = sorted(weight for weight in mismatched if weight.startswith(prefix))
    for weights in parts.values():
        absent = sorted(missing.intersection(weights))
        if len(absent) < len(weights):
            wrong += absent
    present = [part for part, weights in parts.items() if not missing.issuperset(weights)]
    if parts and not present:
        wrong += sorted(missing)
    if wrong:
        raise InputError(
            f"model: {name}: the weight {wrong[0]} is not in its files or has another shape than config.json says "
            f"({len(wrong)} such weights); the files do not belong together"
        )


def _config(recipe: Recipe) -> Any:
    place, options = _place(recipe.model)
    try:
        config = AutoConfig.from_pretrained(place, **options)
    except Exception as error:  # a config class raises what it likes on wrong values
        raise _missing(recipe.model, "config", error) from error
    if "/" in str(config._attn_implementation):
        raise InputError(
            f"model: {recipe.model}: its config.json asks for attention code from a hub, which is never run; "
            "take `_attn_implementation` out"
        )
    return config


def _positions(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    most = getattr(config, "max_position_embeddings", None) or 10**9
    # RoBERTa and its family count positions from the padding token's id on.
    offset = tokenizer.pad_token_id + 1 if OFFSET_POSITIONS.search(config.model_type) else 0
    return int(most - offset)


def _place(model: str) -> tuple[str, dict[str, Any]]:
    location = locate(model, "model")
    if location.path is None:
        return location.name, {"trust_remote_code": False, "local_files_only": offline()}
    if not location.path.is_dir():
        raise InputError(
            f"model: {model} is a file; give the folder with config.json, model.safetensors and tokenizer.json"
        )
    if (location.path / "adapter_config.json").exists():
        # transformers would load what the adapter names as its base, from anywhere.
        raise InputError(f"model: {model} is an adapter: {MERGE_FIRST}")
    return str(location.path), {"trust_remote_code": False, "local_files_only": True}


def _missing(model: str, part: str, error: Exception) -> InputError:
    path = locate(model, "model").path
    if "trust_remote_code" in str(error):
        return InputError(
            f"model: {model} needs code of its own, which is never run; choose a model that transformers knows itself"
        )
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if path is None and isinstance(error, OSError):
        return InputError(f"model: the {part} of {model} could not be loaded: {why_not()} ({said})")
    wanted = {
        "tokenizer": "tokenizer.json",
        "image processor": PREPROCESSOR,
        "model": "model.safetensors",
        "config": "config.json",
    }[part]
    return InputError(f"model: {path or model} has no usable {part} ({wanted} is needed): {said}")
