"""Fingerprints of a base model's and a teacher's files; a change triggers retraining."""

import hashlib
from pathlib import Path

from bentune.bundle.files import sha256_file
from bentune.bundle.manifest import Bundle
from training.pipeline.previous_version import open_parent
from training.recipe.compression import names_bundle
from training.sources.locate import locate

PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model")
TEACHER_KEY = "distill.teacher"


def base_files_digest(model: str, key: str = "model") -> str:
    """Return the sha256 over a local model's files, or over a hub model's name.

    `key` is the recipe's key that names the model. Raises InputError when the model does not exist.
    """
    path = locate(model, key).path
    if path is None or not path.is_dir():
        return hashlib.sha256(model.encode()).hexdigest()
    return hashlib.sha256("".join(f"{file.name}:{sha256_file(file)}\n" for file in _files(path)).encode()).hexdigest()


def teacher_bundle(teacher: str) -> Bundle | None:
    """Open the stored bundle that NAME:VERSION names.

    Returns None where `teacher` is not a tag. Raises InputError if the bundle is missing.
    """
    return open_parent(teacher, TEACHER_KEY) if names_bundle(teacher) else None


def teacher_digest(teacher: str) -> str:
    """Return the bundle's content digest, or the result of `base_files_digest`.

    Raises InputError if the teacher is missing.
    """
    bundle = teacher_bundle(teacher)
    return bundle.content if bundle is not None else base_files_digest(teacher, TEACHER_KEY)


def _files(path: Path) -> list[Path]:
    return sorted(file for pattern in PATTERNS for file in path.glob(pattern) if file.is_file())
