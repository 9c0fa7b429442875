"""A run's directory: one sub-directory a stage, each complete or not there; one process at a time."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from service.contract import FileEntry, sha256_file, write_json
from service.errors import BentuneError, InputError

RECORD = "stage.json"
KEY = "key"
PARTIAL = ".partial"
LOCK = ".lock"


class StageRecord(BaseModel):
    """stage.json, a stage's manifest: its existence means that the stage is complete."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str
    files: dict[str, FileEntry]
    seconds: float
    summary: dict[str, Any]

    @property
    def digest(self) -> str:
        """sha256 over what the stage wrote: later stages are redone when it changes."""
        entries = sorted((name, entry.sha256) for name, entry in self.files.items())
        return hashlib.sha256(json.dumps([entries, self.summary], sort_keys=True).encode()).hexdigest()


class RunDir:
    """runs/<name>/<run id>/, held by this process until it is closed."""

    def __init__(self, root: Path, lock: int) -> None:
        self.root = root
        self._lock = lock

    @classmethod
    @contextlib.contextmanager
    def open(cls, runs: Path, name: str, *, new: bool = False) -> Iterator[Self]:
        """Hold the newest run of `name`, or a new one when there is none or `new` says so.

        Raises InputError when another process holds it.
        """
        parent = runs / name
        existing = sorted(path for path in parent.glob("*") if path.is_dir()) if parent.is_dir() else []
        root = existing[-1] if existing and not new else _new_run(parent)
        with explain_full_disk(root):
            lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise InputError(
                    f"{root} is in use by another process (pid {holder}): wait for it, or start beside it with --new"
                ) from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            yield cls(root, lock)
        finally:
            os.close(lock)

    def stage(self, name: str) -> Path:
        """Directory of a stage, whether or not it is there."""
        return self.root / name

    def record(self, name: str) -> StageRecord | None:
        """The manifest of a finished stage."""
        path = self.stage(name) / RECORD
        try:
            return StageRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            return None

    def intact(self, record: StageRecord) -> bool:
        """Whether every file that the stage wrote is still what it was."""
        directory = self.stage(record.stage)
        return all(
            (directory / name).is_file() and sha256_file(directory / name) == entry.sha256
            for name, entry in record.files.items()
        )

    def begin(self, name: str, key: str, *, keep: bool) -> Path:
        """A directory to work in; what an interrupted run left there is kept only if it had the same key."""
        work = self.root / (name + PARTIAL)
        if work.exists() and not (keep and _read(work / KEY) == key):
            shutil.rmtree(work)
        work.mkdir(exist_ok=True)
        (work / KEY).write_text(key, encoding="utf-8")
        return work

    def finish(self, name: str, key: str, summary: dict[str, Any], seconds: float) -> StageRecord:
        """Write the manifest, last, and put the work in the place of what was there."""
        work, directory = self.root / (name + PARTIAL), self.stage(name)
        (work / KEY).unlink()
        files = {
            path.relative_to(work).as_posix(): FileEntry(sha256=sha256_file(path), size=path.stat().st_size)
            for path in sorted(work.rglob("*"))
            if path.is_file()
        }
        record = StageRecord(stage=name, key=key, files=files, seconds=seconds, summary=summary)
        write_json(work / RECORD, record)
        if directory.exists():
            shutil.rmtree(directory)
        work.rename(directory)
        return record


@contextlib.contextmanager
def explain_full_disk(root: Path) -> Iterator[None]:
    """Turn "no space left", however a library words it, into one clear error."""
    try:
        yield
    except Exception as error:
        chain: BaseException | None = error
        while chain is not None:
            # safetensors and torch report it in words only.
            full = isinstance(chain, OSError) and chain.errno in (errno.ENOSPC, errno.EDQUOT)
            if full or "os error 28" in str(chain) or "No space left on device" in str(chain):
                free = shutil.disk_usage(root if root.exists() else root.parent).free
                raise BentuneError(
                    f"the disk of {root} is full ({free / 1e6:.0f} MB free): make room and give the same command "
                    "again; finished stages are kept"
                ) from error
            chain = chain.__cause__ or chain.__context__
        raise


def _new_run(parent: Path) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{number}" for number in range(1, 100))):
        root = parent / (stamp + suffix)
        with contextlib.suppress(FileExistsError):
            root.mkdir(parents=True)
            return root
    raise BentuneError(f"{parent} has a hundred runs of this second; try again")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
