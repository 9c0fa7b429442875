"""Gives each stored bundle a version greater than all before it of its name, whoever else is storing one."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer

from service.errors import InputError
from service.version import next_version


@contextmanager
def reserved(name: str, sha256: str) -> Iterator[tuple[str, datetime]]:
    """The next version of `name` and its second, nobody else's as long as this is held: store the bundle meanwhile.

    The lock is the kernel's, so that it does not outlive a process that crashed. It is in the home of the stores, and
    so is one for all who share them.
    """
    place = _place()
    descriptor = os.open(place / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield next_version(_stored(name), datetime.now(UTC), sha256)
    finally:
        os.close(descriptor)


def require_store() -> None:
    """Raise InputError when nothing can be stored: better said before the training than after it."""
    try:
        for directory in (_place(), BentoMLContainer.model_store_dir.get(), BentoMLContainer.bento_store_dir.get()):
            with tempfile.TemporaryFile(dir=directory):
                pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"BENTOML_HOME: BentoML's stores cannot be written ({error}): set it to another directory"
        ) from error


def _place() -> Path:
    place = Path(BentoMLContainer.bentoml_home.get()) / "bentune"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _stored(name: str) -> set[str]:
    """Versions by the names of their directories: one that another process left half-written counts as well."""
    stores = (BentoMLContainer.model_store_dir.get(), BentoMLContainer.bento_store_dir.get())
    folders = [Path(store) / name for store in stores]
    return {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
