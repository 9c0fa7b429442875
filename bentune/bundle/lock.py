"""Locks between processes. The kernel holds them, so none outlives a process that crashed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

POLL_S = 0.02


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a directory or a file, and wait until it is free.

    A missing file is created. The lock is advisory: it only excludes other lockers, not readers or writers.
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
