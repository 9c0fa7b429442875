"""Config of a base model; one that a newer transformers saved is translated or refused.

A config class silently stores unknown keys, and the computation ignores them. transformers 5 saves the rotary base in
`rope_parameters` alone; 4.57 then computes with its default, which is another model.
"""

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from packaging.version import InvalidVersion, Version
from transformers import AutoConfig, PretrainedConfig

from bentune.bundle.errors import InputError

ROPE = "rope_parameters"
# Keys about the making or loading of a model, which change no computation.
ABOUT = {
    *("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "model_type", "_name_or_path"),
    *("unsloth_version", "unsloth_fixed", "transformers.js_config"),
}
# Scalings with the same parameters in both versions. `longrope` also has a length outside of them.
SCALINGS = {"default", "linear", "dynamic", "yarn", "llama3"}
SHOWN, SHOWN_CHARACTERS = 5, 60
UNSET: tuple[object, ...] = (None, False, {}, [], "")
# Names under which a config of this transformers holds the rotary base of a kind of layer.
BASES = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}


def load_config(name: str, place: str, options: Mapping[str, Any]) -> PretrainedConfig:
    """Load the config of the model `name`.

    Rotary parameters of transformers 5 are translated into this version's. Raises InputError for a config of a newer
    transformers with keys that this version would ignore.
    """
    config: PretrainedConfig = AutoConfig.from_pretrained(place, **options)
    written, _ = PretrainedConfig.get_config_dict(place, **options)
    unknown = {key for key, value in written.items() if value not in UNSET} - _known(config) - ABOUT
    if ROPE in unknown:
        _take_rope(name, config, written[ROPE])
        unknown.remove(ROPE)
    saved = str(written.get("transformers_version", ""))
    if unknown and _newer(saved):
        shown = ", ".join(key[:SHOWN_CHARACTERS] for key in sorted(unknown)[:SHOWN]) + (
            f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        )
        raise InputError(
            f"model: {name} was saved by transformers {saved}, and its config.json has {shown}, which transformers "
            f"{version('transformers')} leaves out of the computation; give a model that this version supports"
        )
    return config


def _known(config: PretrainedConfig) -> set[str]:
    """Return the keys that the class of a config uses."""
    kinds = [kind for kind in type(config).__mro__ if issubclass(kind, PretrainedConfig)]
    taken = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
    return taken | set(PretrainedConfig().to_dict()) | set(config.attribute_map)


def _newer(saved: str) -> bool:
    try:
        return Version(saved) > Version(version("transformers"))
    except InvalidVersion:
        return False


def _take_rope(name: str, config: PretrainedConfig, given: Any) -> None:
    """Set the rotary base and scaling of a config from `rope_parameters`.

    Raises InputError for parameters without a counterpart in this version.
    """
    found = _by_layer(config, given) or _for_all(config, given) if isinstance(given, dict) else {}
    if not found:
        raise InputError(
            f"model: {name}: its config.json has rotary parameters ({ROPE}) that transformers "
            f"{version('transformers')} has no place for, and would replace by its defaults; give a model that this "
            "version saved"
        )
    for key, value in found.items():
        setattr(config, key, value)


def _by_layer(config: PretrainedConfig, given: dict[str, Any]) -> dict[str, Any]:
    """Translate parameters per kind of layer, such as ModernBERT's; empty for others."""
    found = {}
    for kind, one in given.items():
        place = BASES.get(kind, "")
        if not hasattr(config, place) or not isinstance(one, dict) or one.get("rope_type", "default") != "default":
            return {}
        if not {"rope_theta"} <= one.keys() <= {"rope_theta", "rope_type"}:
            return {}
        found[place] = float(one["rope_theta"])
    return found


def _for_all(config: PretrainedConfig, given: dict[str, Any]) -> dict[str, Any]:
    """Translate parameters for all layers.

    The result is empty where one of them has no counterpart in this version.
    """
    scaling = {key: value for key, value in given.items() if key != "rope_theta"}
    kind, share = scaling.get("rope_type", "default"), scaling.pop("partial_rotary_factor", None)
    if "rope_theta" not in given or not hasattr(config, "rope_theta") or kind not in SCALINGS:
        return {}
    if share not in (None, getattr(config, "partial_rotary_factor", 1.0)):
        return {}
    found = {"rope_theta": float(given["rope_theta"])}
    if kind == "default":
        return found
    return found | {"rope_scaling": scaling} if hasattr(config, "rope_scaling") else {}
