"""What a base model is at this moment, without loading it: a change of its files redoes the training."""

import hashlib
from pathlib import Path

from bentune.bundle.files import sha256_file
from training.sources.locate import locate

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model")


def base_files_digest(model: str, key: str = "model") -> str:
    """sha256 over the files of a local model, or over the name of a hub's; raises InputError when it is not there.

    `key` is the recipe's that names the model.
    """
    path = locate(model, key).path
    if path is None or not path.is_dir():
        return hashlib.sha256(model.encode()).hexdigest()
    return hashlib.sha256("".join(f"{file.name}:{sha256_file(file)}\n" for file in _files(path)).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for pattern in PATTERNS for file in path.glob(pattern) if file.is_file())
