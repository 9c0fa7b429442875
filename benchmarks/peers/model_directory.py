"""Model of a Bentune run as a Hugging Face directory, so that all servers load the same weights."""

import json
import shutil
from pathlib import Path

from bentune.bundle.errors import InputError

MERGED = "merge/model"
EXPORTED = "export/model/fp32.onnx"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"
TOKENIZER_SETTINGS = "tokenizer_config.json"


def write_model_directory(run: Path, target: Path, max_tokens: int) -> Path:
    """Fill `target` with the model files of the run directory `run`; return `target`.

    The files are config, tokenizer, model.safetensors and model.onnx. The two files of weights are links into the run.
    Raises InputError when the run is not exported yet.
    """
    merged, onnx = run / MERGED, run / EXPORTED
    for needed in (merged / WEIGHTS, onnx):
        if not needed.is_file():
            raise InputError(f"{needed} is missing: {run} is not a run that was merged and exported")
    # In the top folder: Optimum and infinity search every folder, and take the only ONNX file.
    target.mkdir(parents=True)
    for path in merged.iterdir():
        if path.name != WEIGHTS:
            shutil.copyfile(path, target / path.name)
    (target / WEIGHTS).symlink_to((merged / WEIGHTS).resolve())
    (target / ONNX).symlink_to(onnx.resolve())
    _limit_tokens(target / TOKENIZER_SETTINGS, max_tokens)
    return target


def _limit_tokens(settings_file: Path, max_tokens: int) -> None:
    """Write the length limit into the tokenizer's settings.

    Servers like infinity's torch engine read it there.
    """
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings_file.write_text(json.dumps(settings | {"model_max_length": max_tokens}, indent=2), encoding="utf-8")
