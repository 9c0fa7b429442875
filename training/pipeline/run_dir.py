"""A run's directory, which one process uses at a time: a sub-directory per stage, each complete or absent."""

import contextlib
import errno
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar

from pydantic import ValidationError

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.files import sha256_file, write_json
from bentune.bundle.lock import locked, try_lock
from bentune.bundle.manifest import FileEntry
from training.pipeline.layout import RECORD, StageFiles
from training.pipeline.results import RESULTS, R, Result, StageRecord, result_in

_Files = TypeVar("_Files", bound=StageFiles)

KEY = "key"
PARTIAL = ".partial"
LOCK = ".lock"
PURPOSE = ".purpose"
RUN_ID = re.compile(r"([0-9]{8}-[0-9]{6})(?:-([0-9]+))?")
# Messages of safetensors, tokenizers and torch on a full disk, because they set no errno.
FULL_DISK = ("os error 28", "No space left on device", "PytorchStreamWriter failed writing", "] . unexpected pos ")


class RunDir:
    """runs/<name>/<run id>/, held by this process until it is closed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    @contextlib.contextmanager
    def open(cls, runs: Path, name: str, *, new: bool = False, purpose: str = "") -> Iterator[Self]:
        """Lock the newest run of `name` that has this purpose, or a new one.

        A new run is made when there is none or `new` is set. Without a purpose, raises InUse when another process holds
        the newest run. With a purpose, any free run of that purpose is used, and a new one is made when all are held. A
        run in which nothing was done is removed again. Raises InputError when `runs` cannot be written.
        """
        parent = runs / name
        with explain_full_disk(parent), _explain_no_access(parent):
            parent.mkdir(parents=True, exist_ok=True)
            # Two processes that start at once must not choose the same run.
            with locked(parent):
                existing = [] if new else cls.existing(runs, name, purpose)
                root, lock = _free(existing, parent, purpose) if purpose else _newest(existing, parent)
        try:
            yield cls(root)
        finally:
            with contextlib.suppress(OSError), locked(parent):
                if {path.name for path in root.iterdir()} <= {LOCK, PURPOSE}:
                    shutil.rmtree(root)
            os.close(lock)

    @staticmethod
    def existing(runs: Path, name: str, purpose: str = "") -> list[Path]:
        """Return the directories of `name`'s runs for this purpose, the oldest first."""
        parent = runs / name
        paths = parent.iterdir() if parent.is_dir() else ()
        found = sorted((number, path) for path in paths if (number := _run_number(path)))
        return [path for _, path in found if _read(path / PURPOSE) == purpose]

    def stage(self, name: str) -> Path:
        """Return the directory of a stage, whether or not it exists."""
        return self.root / name

    def files(self, kind: type[_Files]) -> _Files:
        """Return the files of a stage, whether or not they exist."""
        return kind(self.stage(kind.stage))

    def record(self, name: str) -> StageRecord | None:
        """Read the record of a finished stage.

        Returns None where the stage is not done, or was done by code of another layout.
        """
        try:
            record = StageRecord.model_validate_json((self.stage(name) / RECORD).read_bytes())
            record.result(RESULTS[name])
        except (FileNotFoundError, ValidationError):
            return None
        return record

    def result(self, kind: type[R]) -> R:
        """Read the result of a stage that is done."""
        return result_in(self.stage(kind.stage), kind)

    def intact(self, record: StageRecord) -> bool:
        """Return True when every file of the stage is unchanged."""
        directory = self.stage(record.stage)
        return all(
            (directory / name).is_file() and sha256_file(directory / name) == entry.sha256
            for name, entry in record.files.items()
        )

    def unfinished(self, name: str, key: str) -> Path | None:
        """Return the directory that an interrupted run of a stage with this key left."""
        work = self.root / (name + PARTIAL)
        return work if _read(work / KEY) == key else None

    @contextlib.contextmanager
    def working(
        self, name: str, key: str, *, keep: bool, worth_keeping: Callable[[Path], set[str]] | None = None
    ) -> Iterator[Path]:
        """Make a directory to work in until `finish`.

        Files of an interrupted run stay only with `keep`. When the work fails or is interrupted, everything is removed
        except the names that `worth_keeping` returns.
        """
        work = self.root / (name + PARTIAL)
        try:
            self.begin(name, key, keep=keep)
            yield work
        except BaseException:
            kept = {KEY} | (worth_keeping(work) if worth_keeping is not None and work.is_dir() else set())
            for path in work.glob("*"):
                if path.name not in kept:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if {path.name for path in work.glob("*")} <= {KEY}:
                shutil.rmtree(work, ignore_errors=True)
            raise

    def begin(self, name: str, key: str, *, keep: bool) -> Path:
        """Make a directory to work in.

        Files of an interrupted run stay only with `keep` and the same key.
        """
        work = self.root / (name + PARTIAL)
        if keep and self.unfinished(name, key):
            return work  # on a full disk, writing the key again would lose it
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
        (work / KEY).write_text(key, encoding="utf-8")
        return work

    def finish(self, key: str, result: Result, seconds: float) -> StageRecord:
        """Write the record, last, and replace the stage's directory by its work."""
        name = result.stage
        work, directory = self.root / (name + PARTIAL), self.stage(name)
        (work / KEY).unlink()
        files = {
            path.relative_to(work).as_posix(): FileEntry(sha256=sha256_file(path), size=path.stat().st_size)
            for path in sorted(work.rglob("*"))
            if path.is_file()
        }
        record = StageRecord(stage=name, key=key, files=files, seconds=seconds, summary=result.written())
        write_json(work / RECORD, record)
        if directory.exists():
            shutil.rmtree(directory)
        work.rename(directory)
        return record


class InUse(InputError):
    """The error for a run that another process holds."""


class DiskFull(BentuneError):
    """The error for a disk without space left; `explain_full_disk` raises it."""


@contextlib.contextmanager
def explain_full_disk(root: Path) -> Iterator[None]:
    """Convert any library's "no space left" to DiskFull; `root` is written to."""
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        chain: BaseException | None = error
        while chain is not None:
            named = isinstance(chain, OSError) and chain.errno in (errno.ENOSPC, errno.EDQUOT)
            if named or any(words in str(chain) for words in FULL_DISK):
                place = _full_place(chain, root)
                free = shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free
                raise DiskFull(
                    f"the disk of {place} is full ({free / 1e6:.1f} MB free): make room and give the same command "
                    "again; finished stages are kept"
                ) from error
            chain = chain.__cause__ or chain.__context__
        raise


def _full_place(error: BaseException, root: Path) -> Path:
    """Return `root`, or the file outside of it that could not be written.

    Such a file may be in the hub's cache, the BentoML stores or /tmp.
    """
    name = getattr(error, "filename", None)
    place = Path(name).absolute() if isinstance(name, str) else root.absolute()
    return root.absolute() if place.is_relative_to(root.absolute()) else place


@contextlib.contextmanager
def _explain_no_access(parent: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"--runs: {parent} cannot be used: {error.strerror}; give another directory") from error


def _newest(existing: list[Path], parent: Path) -> tuple[Path, int]:
    root = existing[-1] if existing else _new_run(parent)
    return root, _lock(root)


def _free(existing: list[Path], parent: Path, purpose: str) -> tuple[Path, int]:
    for root in reversed(existing):
        with contextlib.suppress(InUse):
            return root, _lock(root)
    root = _new_run(parent)
    (root / PURPOSE).write_text(purpose, encoding="utf-8")
    return root, _lock(root)


def _lock(root: Path) -> int:
    """Lock a run until this process ends or the returned descriptor is closed."""
    lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not try_lock(lock):
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise InUse(
                f"{root} is in use by another process (pid {holder}): wait for it, or start beside it with --new"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _run_number(path: Path) -> tuple[str, int] | None:
    """Return the start of a run, to sort by; None for a path that is not a run."""
    match = RUN_ID.fullmatch(path.name)
    return (match[1], int(match[2] or 0)) if match and path.is_dir() else None


def _new_run(parent: Path) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    root = next(
        path
        for number in itertools.count()
        if not (path := parent / (f"{stamp}-{number}" if number else stamp)).exists()
    )
    root.mkdir()
    return root


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
