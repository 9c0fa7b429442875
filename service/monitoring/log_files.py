"""Files of lines in one directory with a bound on their total size: the oldest are deleted first."""

import errno
import os
import re
import time
from pathlib import Path

from bentune.bundle.lock import locked, try_lock

# Number of files that share the bound: deleting the oldest loses an eighth of the log.
FILES = 8
_NAME = re.compile(r"predictions-[0-9]{20}-[0-9]+\.jsonl")


def log_files(directory: Path) -> list[Path]:
    """Return the files of a log, oldest first, without other files or symbolic links."""
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name) and not path.is_symlink())


class LogFiles:
    """Writer of one process's files. The bound includes the files of earlier and concurrent processes."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Bound all files of the log in `directory` by `max_bytes`.

        The directory is made when it is first needed.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._file_bytes = max_bytes // FILES
        self._file: int | None = None
        self._size = 0

    def append(self, line: bytes) -> None:
        """Write a line whole or not at all.

        Raises OSError when the line cannot be written, or is larger than the bound of a file.
        """
        if len(line) > self._file_bytes:
            raise OSError(errno.EFBIG, f"a line of {len(line)} bytes, a file has at most {self._file_bytes}")
        if self._file is None or self._size + len(line) > self._file_bytes:
            self.close()
            self._file, self._size = self._new(), 0
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            # Half a line must not become the start of the next one.
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                self.close()
            raise
        self._size += len(line)

    def close(self) -> None:
        """Close the file; the next line opens another."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _new(self) -> int:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self._directory):  # one process at a time counts and deletes
            self._make_room()
            path = self._directory / f"predictions-{time.time_ns():020d}-{os.getpid()}.jsonl"
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            # Locked while it is written: another process then does not take it for finished and delete it.
            try_lock(file)
            return file

    def _make_room(self) -> None:
        """Delete the oldest finished files until one more fits.

        Raises OSError when there is none to delete.
        """
        sizes = {path: path.stat().st_size for path in log_files(self._directory)}
        finished = [path for path in sizes if not _is_written(path)]
        # Files that are being written may still grow.
        sizes |= {path: max(sizes[path], self._file_bytes) for path in sizes if path not in finished}
        while sum(sizes.values()) + self._file_bytes > self._max_bytes or len(sizes) >= FILES:
            if not finished:
                raise OSError(
                    errno.ENOSPC, f"other processes write {len(sizes)} files, which leaves no room for another"
                )
            oldest = finished.pop(0)
            oldest.unlink()
            del sizes[oldest]


def _is_written(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not try_lock(file)
    finally:
        os.close(file)
