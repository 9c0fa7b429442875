"""What a teacher is at this moment, without loading it: a change of it redoes the training."""

from bentune.bundle.manifest import Bundle
from training.pipeline.fingerprints import base_files_digest
from training.pipeline.previous_version import open_parent
from training.recipe.compression import names_bundle

KEY = "distill.teacher"


def bundle_of(teacher: str) -> Bundle | None:
    """The stored bundle that NAME:VERSION names, None for what is no tag. Raises InputError when it is not there."""
    return open_parent(teacher, KEY) if names_bundle(teacher) else None


def teacher_digest(teacher: str) -> str:
    """sha256 over its files, or over the name of a hub's. Raises InputError when it is not there."""
    bundle = bundle_of(teacher)
    return bundle.content if bundle is not None else base_files_digest(teacher, KEY)
