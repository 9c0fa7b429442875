"""Base model: an encoder from a hub, a path or a package, with a fresh head for the recipe's labels."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as transformers_logging

from bentune.bundle.errors import InputError
from bentune.bundle.hardware import visible_cores
from training.pipeline.fingerprints import base_files_digest
from training.recipe.recipe import Recipe
from training.sources.locate import locate, offline, why_not
from training.tasks.base.classifier import auto_model, loads
from training.tasks.base.config import load_config
from training.tasks.base.head import LabelMatch, has_head, head_modules, match_labels, output_layers, renew, take_rows
from training.tasks.image.processor import FILE as PREPROCESSOR
from training.tasks.image.processor import ImageProcessor
from training.tasks.registry import target_of, task_of
from training.tasks.task import Task

MERGE_FIRST = "merge it into its base model first, and give the merged model"
STUDENT_LAYERS = "distill.student_layers"
TOKEN_TYPES = "token_type_ids"  # noqa: S105
NEWER_TOKENIZER = "TokenizersBackend"


@dataclass(frozen=True, slots=True)
class Base:
    """Base model; `fresh` names the modules (head, pooler) with weights that are not in its checkpoint.

    `head` describes the reuse of the head of a base model that is a classifier; it is empty for other models.
    """

    model: PreTrainedModel
    fresh: list[str]
    head: str = ""


def quiet() -> None:
    """Limit torch to this process's cores, and the log of transformers to errors."""
    torch.set_num_threads(visible_cores())
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """Load the base model's fast tokenizer, with truncation and padding off.

    Raises InputError when the model has no tokenizer that can be served, or when max_tokens exceeds its maximum.
    """
    place, options = _place(recipe.model)
    config = base_config(recipe)
    try:
        tokenizer = _tokenizer(place, options)
    except Exception as error:  # the Rust side raises bare Exception
        raise _missing(recipe.model, "tokenizer", error) from error
    if not tokenizer.is_fast:
        raise InputError(f"model: {recipe.model} has no tokenizer.json and none can be made from its files; add one")
    if tokenizer.pad_token is None:
        # As GPT-2 and Llama are tuned everywhere: padding is masked, so that any token does.
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise InputError(
            f"model: {recipe.model}: its tokenizer has no padding token; set one in its tokenizer_config.json"
        )
    vocabulary = getattr(config, "vocab_size", None) or len(tokenizer)
    if len(tokenizer) > vocabulary:
        raise InputError(
            f"model: {recipe.model}: its tokenizer has {len(tokenizer)} tokens and the model {vocabulary}: "
            "give a model with its own tokenizer"
        )
    most = min(tokenizer.model_max_length, _positions(config, tokenizer, task_of(recipe)))
    if recipe.max_tokens > most:
        raise InputError(f"max_tokens: {recipe.max_tokens} is more than the maximum of {recipe.model}, {most}")
    if not getattr(config, "type_vocab_size", 0) and TOKEN_TYPES in tokenizer.model_input_names:
        # A generic tokenizer gives them to every model: GPT-2 adds a word's embedding for them, MPNet refuses them, and
        # the exported graph takes none.
        names = [name for name in tokenizer.model_input_names if name != TOKEN_TYPES]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _tokenizer(place: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Load a tokenizer; from tokenizer.json if only transformers 5 has its class."""
    kind = get_tokenizer_config(place, **options).get("tokenizer_class")
    loader: Any = PreTrainedTokenizerFast if kind == NEWER_TOKENIZER else AutoTokenizer
    # transformers 5 saves a list of tokens, which tokenizer.json has too; transformers 4 requires a mapping.
    more: dict[str, Any] = {"extra_special_tokens": {}} if kind == NEWER_TOKENIZER else {}
    tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(place, use_fast=True, **more, **options)
    return tokenizer


def load_image_processor(recipe: Recipe) -> ImageProcessor:
    """Load the base model's image processor.

    Raises InputError when it has no image processor that can be served.
    """
    place, options = _place(recipe.model)
    config = base_config(recipe)
    if not loads(config, task_of(recipe)):
        raise InputError(
            f"model: {recipe.model} is a {config.model_type}, which classifies no images; choose another, such as ViT"
        )
    try:
        return ImageProcessor.of(place, **options)
    except InputError:
        raise
    except Exception as error:  # a processor's own code may raise any error on wrong values
        raise _missing(recipe.model, "image processor", error) from error


def load_base(recipe: Recipe, labels: Sequence[str]) -> Base:
    """Load the base model with a head for `labels`; the same seed gives the same head.

    Where the base model is a classifier, its head is kept for labels of the same name and is fresh for other labels.
    Only safetensors weights are read, never a pickle, and the model's own code is never run. Raises InputError when the
    model cannot be loaded.
    """
    place, options = _place(recipe.model)
    own, config = base_config(recipe), base_config(recipe)
    config.id2label = dict(enumerate(labels))  # and with it the number of labels
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = target_of(recipe).problem_type
    load = partial(auto_model(task_of(recipe)).from_pretrained, place, use_safetensors=True, dtype=torch.float32)
    set_seed(recipe.seed)
    try:
        model, info = load(config=config, ignore_mismatched_sizes=True, output_loading_info=True, **options)
    except Exception as error:  # safetensors and transformers raise errors without a common base
        raise _missing(recipe.model, "model", error) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(f"model: {recipe.model} is an adapter: {MERGE_FIRST}")
    missing, mismatched = set(info["missing_keys"]), set(info["mismatched_keys"])
    _require_weights(recipe.model, model, missing, mismatched)
    prefix = model.base_model_prefix + "."
    fresh = {key.removeprefix(prefix).partition(".")[0] for key in missing | mismatched}
    head = ""
    if has_head(model, missing, len(labels)):
        match = match_labels(labels, _names(own))
        head = str(match)
        if not match.in_place:
            known = load(config=own, **options) if match.rows else None
            fresh |= _fit_head(model, known, match, recipe.seed)
    if recipe.distill is not None and recipe.distill.student_layers is not None:
        model = with_fewer_layers(model, recipe.distill.student_layers)
    return Base(model, sorted(fresh), head)


def _fit_head(model: PreTrainedModel, known: PreTrainedModel | None, match: LabelMatch, seed: int) -> set[str]:
    """Fill the head with rows of `known` for matching labels, else with fresh rows.

    Returns the names of the modules with fresh weights.
    """
    set_seed(seed)
    renewed = head_modules(model) if known is None else output_layers(model, len(match.ours))
    renew(model, renewed)
    if known is not None:
        take_rows(model, known, match)
    return set() if match.whole else {name.partition(".")[0] for name in renewed}


def class_names(recipe: Recipe) -> list[str]:
    """List the labels of the recipe's model, in the order of its logits.

    Raises InputError when the model's config cannot be used.
    """
    return _names(base_config(recipe))


def _names(config: PretrainedConfig) -> list[str]:
    names = config.id2label or {}
    return [names[index] for index in sorted(names)]


def base_digest(recipe: Recipe, model: PreTrainedModel) -> str:
    """Hash the base weights by sha256: a local model's files, or a hub model's commit."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit is not None:
        return hashlib.sha256(f"{recipe.model}@{commit}".encode()).hexdigest()
    return base_files_digest(recipe.model)


def _require_weights(name: str, model: PreTrainedModel, missing: set[str], mismatched: set[str]) -> None:
    """Raise InputError for an encoder with missing weights.

    transformers would silently initialize them at random. A module may be missing completely, such as BERT's pooler in
    a masked language model, but not partly.
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
            f"model: {name}: the weight {wrong[0]} is not in its files or has another shape than in config.json "
            f"({len(wrong)} such weights); the files do not belong together: restore them"
        )


def base_config(recipe: Recipe) -> PretrainedConfig:
    """Load the base model's config. Raises InputError for one that this version would read wrongly."""
    place, options = _place(recipe.model)
    try:
        config = load_config(recipe.model, place, options)
    except InputError:
        raise
    except Exception as error:  # config classes raise errors without a common base
        raise _missing(recipe.model, "config", error) from error
    if "/" in str(config._attn_implementation):
        raise InputError(
            f"model: {recipe.model}: its config.json names attention code from a hub, which is never run; "
            "remove `_attn_implementation`"
        )
    return config


def pad_as_tokenizer(config: PretrainedConfig, processor: Any) -> int | None:
    """Give the model the tokenizer's padding token and return it; None for images.

    Decoders with a head for sequences find the last token of a text by it, and a config may have none or another.
    """
    padding: int | None = getattr(processor, "pad_token_id", None)
    if padding is not None:
        config.pad_token_id = padding
    return padding


def _positions(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, task: Task) -> int:
    """Return the number of tokens for which the model has positions."""
    most = getattr(config, "max_position_embeddings", None) or 10**9
    # RoBERTa, MPNet and more number positions from the padding token's id onward, each by a copy of one function.
    kind = auto_model(task)._model_mapping.get(type(config), None)
    module = sys.modules.get(kind.__module__) if isinstance(kind, type) else None
    counted = [module, *vars(module).values()] if module is not None else []
    offset = any(hasattr(one, "create_position_ids_from_input_ids") for one in counted)
    return int(most - (tokenizer.pad_token_id + 1 if offset else 0))


def _place(model: str) -> tuple[str, dict[str, Any]]:
    location = locate(model, "model")
    if location.path is None:
        return location.name, {"trust_remote_code": False, "local_files_only": offline()}
    if not location.path.is_dir():
        raise InputError(
            f"model: {model} is a file; give the folder with config.json, model.safetensors and tokenizer.json"
        )
    if (location.path / "adapter_config.json").exists():
        # transformers would load the base that the adapter names, from anywhere.
        raise InputError(f"model: {model} is an adapter: {MERGE_FIRST}")
    return str(location.path), {"trust_remote_code": False, "local_files_only": True}


def _missing(model: str, part: str, error: Exception) -> InputError:
    path = locate(model, "model").path
    if "trust_remote_code" in str(error):
        return InputError(
            f"model: {model} needs code of its own, which is never run; choose a model that transformers supports"
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


def with_fewer_layers(model: PreTrainedModel, keep: int) -> PreTrainedModel:
    """Build a student of `keep` of the encoder's layers, initialized like DistilBERT.

    The layers are spaced evenly from the first to the last: of twelve, six are 0, 2, 4, 7, 9, 11, as in Sanh et al.
    2019 (https://arxiv.org/abs/1910.01108). The model is built from its changed config, so that it equals a saved and
    loaded copy. Raises InputError when there are fewer layers, or when the layers cannot be found.
    """
    path, there = _layers(model)
    if keep > there:
        raise InputError(f"{STUDENT_LAYERS}: {keep} is more than the {there} layers of the model; give fewer")
    if keep == there:
        return model
    places = {layer: place for place, layer in enumerate(np.linspace(0, there - 1, keep).round().astype(int).tolist())}
    config = type(model.config).from_dict(model.config.to_dict())
    config.num_hidden_layers = keep
    try:
        student = type(model)._from_config(config, dtype=torch.float32)
        student.load_state_dict(
            {
                name: weight
                for old, weight in model.state_dict().items()
                if (name := _renamed(old, f"{path}.", places)) is not None
            }
        )
    except Exception as error:  # models with unequal layers raise errors without a common base
        raise InputError(
            f"{STUDENT_LAYERS}: layers cannot be left out of a {model.config.model_type}: {error}"
        ) from error
    return cast("PreTrainedModel", student.eval())


def _layers(model: PreTrainedModel) -> tuple[str, int]:
    """Find the name and length of the encoder's list of layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    if len(found) != 1 or count is None:
        raise InputError(
            f"{STUDENT_LAYERS}: a {model.config.model_type} has no list of layers to choose from; give a smaller "
            "model as `model`"
        )
    return found[0], int(count)


def _renamed(name: str, prefix: str, places: dict[int, int]) -> str | None:
    """Rename a weight for the student; None for a weight of a layer that was left out."""
    if not name.startswith(prefix):
        return name
    layer, _, rest = name.removeprefix(prefix).partition(".")
    place = places.get(int(layer))
    return None if place is None else f"{prefix}{place}.{rest}"
