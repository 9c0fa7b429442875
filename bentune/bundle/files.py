"""Files of a bundle: the base class of their models, atomic writes, and digests."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Model of a bundle's part: unknown keys are errors, values are immutable, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path`, and replace `path` by it when the block ends.

    A reader finds the old file or the new one, never half of one, even after a crash or a power cut. When the block
    raises, `path` stays as it is and the other file is removed.
    """
    part = part_of(path)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(path.parent)


def part_of(path: Path) -> Path:
    """Return the temporary file of `atomic_write`.

    A killed process leaves it behind; the next write replaces it.
    """
    return path.with_name(f"{path.name}.part")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with `atomic_write`, keeping line ends."""
    content = text.encode()
    with atomic_write(path) as file:
        file.write(content)


def write_json(path: Path, value: BaseModel | object) -> None:
    """Write JSON with `atomic_write`. Raises ValueError like `json_bytes`."""
    content = json_bytes(value)
    with atomic_write(path) as file:
        file.write(content)


def json_bytes(value: BaseModel | object) -> bytes:
    """Return the bytes that `write_json` writes.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return (json.dumps(plain, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode()


def sync_directory(path: Path) -> None:
    """Flush a directory's names to disk, so that they survive a power cut."""
    # Some network file systems refuse this; the names are then lost only by a power cut.
    with suppress(OSError):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def sha256_file(path: Path) -> str:
    """Return the hex digest of the file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
