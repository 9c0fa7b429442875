"""The recipe's `train.deepspeed`: DeepSpeed's own configuration, without the keys that the recipe sets itself."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

MOST_BYTES = 1_000_000
AUTO = "auto"
# Trainer fills these in from the recipe.
RECIPES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
ELSEWHERE = {"optimizer": "AdamW with train.weight_decay", "scheduler": "train.schedule"}
KEYS = (
    *RECIPES,
    "zero_optimization",
    "bf16",
    "fp16",
    "activation_checkpointing",
    "aio",
    "checkpoint",
    "comms_logger",
    "communication_data_type",
    "compile",
    "data_types",
    "dump_state",
    "flops_profiler",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "steps_per_print",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
)


def _read(value: Any) -> Any:
    """Replace the name of a JSON file by its content, so that the recipe contains it."""
    if not isinstance(value, str):
        return value
    try:
        with Path(value).expanduser().open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"{value} is larger than {MOST_BYTES:,} bytes")
        found = json.loads(content)
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{value} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{value} holds no JSON object")
    return found


def _known(given: dict[str, Any]) -> dict[str, Any]:
    """Refuse keys that DeepSpeed would silently ignore, or that the recipe sets."""
    for key, value in given.items():
        if key in ELSEWHERE:
            raise ValueError(f"{key}: the recipe sets it ({ELSEWHERE[key]}); leave it out")
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(KEYS)}"
            raise ValueError(f"{key}: DeepSpeed's configuration has no such key that can be set here; {hint}")
        if key in RECIPES and value != AUTO:
            raise ValueError(f"{key}: the recipe sets it; leave it out or give {AUTO!r}")
        if key in {"bf16", "fp16"} and (not isinstance(value, dict) or value.get("enabled", AUTO) != AUTO):
            raise ValueError(f"{key}.enabled: train.precision sets it; leave it out or give {AUTO!r}")
    return given


DeepspeedSettings = Annotated[dict[str, Any], BeforeValidator(_read), AfterValidator(_known)]
