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
    """A part of the bundle: unknown keys are errors, values do not change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path`, and put it in place of `path` when the block ends.

    A reader sees the old file or the new one, never half of one, after a crash or a power cut too. When the block
    raises, `path` stays as it is and nothing is left beside it.
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
    """Return the file that `atomic_write` writes.

    A process that is killed leaves this file; the next write replaces it.
    """
    return path.with_name(f"{path.name}.part")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with `atomic_write`, line ends as they are."""
    content = text.encode()
    with atomic_write(path) as file:
        file.write(content)


def write_json(path: Path, value: BaseModel | object) -> None:
    """Write JSON with `atomic_write`. Raises ValueError as `json_bytes` does."""
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
    """Make names in a directory survive a power cut, as fsync does bytes in a file."""
    # Some network file systems refuse this; the names are right there all the same, until the power goes.
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
