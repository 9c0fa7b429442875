"""Locks between processes. The kernel holds them, so none outlives a process that crashed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

POLL_S = 0.02


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a directory or a file, and wait until it is free.

    The file is made where there is none. Only who locks it too is kept out: it can be read and written all the same.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        lock_descriptor(descriptor, poll_interval=POLL_S)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed, or return False if it is held already."""
    return lock_descriptor(descriptor, blocking=False)
