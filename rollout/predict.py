"""Offline scoring of a file with the service's own predictor, safe to interrupt.

    OUT.jsonl.partial             the finished lines; locked while a process writes it
    OUT.jsonl.partial.meta.json   the inputs of those lines, so that only the same work is resumed
    OUT.jsonl                     the partial under its final name, once it has every row

Each row is scored once, however often the work is interrupted.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Protocol

from bentune.bundle.errors import BentuneError, InputError, RequestError
from bentune.bundle.files import sha256_file, sync_directory, write_json
from bentune.bundle.lock import try_lock
from bentune.bundle.rows import read_rows, text_of
from bentune.bundle.targets.target import Prediction


class Scorer(Protocol):
    """Predictor of texts or pairs."""

    @property
    def digest(self) -> str:
        """Return the digest of the bundle: another digest may give other scores."""
        ...

    def score(self, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction]]:
        """Return predictions of texts or pairs in their order, best label first.

        A text that is too long is truncated.
        """
        ...


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """Rows of the output, rows that an earlier run had finished, and wall seconds of this run."""

    rows: int
    resumed_at: int
    seconds: float


@dataclass(frozen=True)
class _Guard:
    """Inputs of a partial's lines; field names are the keys of its meta file."""

    input_sha256: str
    model_digest: str
    text_column: str
    pair_column: str | None
    top_k: int | None


def predict_file(
    scorer: Scorer,
    input_path: Path,
    output_path: Path,
    *,
    text_column: str = "text",
    pair_column: str | None = None,
    top_k: int | None = None,
    chunk_rows: int = 512,
    progress: Callable[[int], None],
    overwrite: bool = False,
) -> PredictSummary:
    """Write the predictions of each row as a JSON line, in the file's order.

    A line is `{"row": n, "prediction": [{"label": ..., "score": ...}, ...]}`. Rows are scored and flushed to disk
    `chunk_rows` at a time. After any interruption, the same call resumes after the last whole line. `progress` is
    called at the start and after each chunk with the total of finished rows, those of earlier runs included.
    `overwrite` replaces an existing output, and a partial of other work.

    Raises:
        InputError: bad arguments, a bad row, an existing output, a partial that belongs to other work or that another
            process is writing. Chunks before a bad row stay.
        BentuneError: the output cannot be written, or the model gave a score that is no number. Finished chunks stay.
    """
    started = time.monotonic()
    partial_path = output_path.with_name(output_path.name + ".partial")
    meta_path = partial_path.with_name(partial_path.name + ".meta.json")
    for name, value in (("top_k", top_k), ("chunk_rows", chunk_rows)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; give at least 1")
    if input_path.resolve() in {path.resolve() for path in (output_path, partial_path, meta_path)}:
        raise InputError(f"{output_path}: the output would be written over the input; give another output")
    rows = read_rows(input_path)
    _refuse_finished(output_path, overwrite)
    guard = _Guard(sha256_file(input_path), scorer.digest, text_column, pair_column, top_k)

    with _locked(partial_path) as partial:
        _refuse_finished(output_path, overwrite)  # again: the former holder of the lock may have finished it
        resumed_at = done = _resume(partial, partial_path, meta_path, guard, overwrite)
        progress(done)
        for _ in islice(rows, done):
            pass
        while chunk := list(islice(rows, chunk_rows)):
            texts = [
                (
                    text_of(row, text_column, input_path),
                    None if pair_column is None else text_of(row, pair_column, input_path),
                )
                for row in chunk
            ]
            try:
                scored = zip(chunk, scorer.score(texts), strict=True)
            except RequestError as error:  # an invalid image; its number counts from the first row of the chunk
                raise InputError(f"{input_path}, rows from {chunk[0].number} on: {error}") from None
            lines = b"".join(_line(row.number, predictions[:top_k]) for row, predictions in scored)
            with _writing(partial_path):
                _append(partial, lines)
            done += len(chunk)
            progress(done)
        with _writing(output_path):
            partial_path.replace(output_path)
            meta_path.unlink(missing_ok=True)
            sync_directory(output_path.parent)
    return PredictSummary(done, resumed_at, time.monotonic() - started)


def _refuse_finished(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        raise InputError(f"{output}: a directory where the output file should be; give another output")
    if output.exists() and not overwrite:
        raise InputError(f"{output}: already exists; give another output, or --overwrite to replace it")


@contextmanager
def _locked(path: Path) -> Iterator[FileIO]:
    """Open a file for appending with an exclusive lock; create it where it is missing."""
    while True:
        try:
            # Unbuffered: a failed write must not be repeated when the file is closed.
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); make the directory, or give another output"
            ) from None
        with file:
            if not try_lock(file.fileno()):
                raise InputError(
                    f"{path}: another process is writing it; wait until it has ended, or give another output"
                )
            # Before the lock, the former owner may have renamed the file to the finished output.
            if _is_at(file, path):
                yield file
                return


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _resume(partial: FileIO, path: Path, meta_path: Path, guard: _Guard, overwrite: bool) -> int:
    """Cut the partial after its last whole line and return its number of rows."""
    try:
        rows, size = _whole_lines(path)
        if rows:
            _check_guard(path, meta_path, guard)
    except InputError:
        if not overwrite:
            raise
        rows = size = 0
    with _writing(path):
        partial.truncate(size)
        if not rows:
            # Only once the partial is empty: a meta file must never describe another run's lines.
            write_json(meta_path, asdict(guard))
    return rows


def _whole_lines(path: Path) -> tuple[int, int]:
    """Count the lines and bytes of a partial up to its last line end.

    Raises InputError unless they are rows 0, 1, 2...
    """
    rows = size = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or record.get("row") != rows or "prediction" not in record:
                raise InputError(f"{path}, line {rows + 1}: not the line of row {rows}; {_way_out(path)}")
            rows += 1
            size += len(line)
    return rows, size


def _check_guard(path: Path, meta_path: Path, guard: _Guard) -> None:
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        meta = None
    if not isinstance(meta, dict):
        raise InputError(f"{path}: {meta_path.name}, which describes its inputs, is missing; {_way_out(path)}")
    other = [name for name, value in asdict(guard).items() if name not in meta or meta[name] != value]
    if other:
        raise InputError(f"{path}: belongs to other work ({', '.join(other)} differ); {_way_out(path)}")


def _way_out(path: Path) -> str:
    return f"delete {path} to start again, or give --overwrite, or give another output"


def _line(row: int, predictions: Sequence[Prediction]) -> bytes:
    try:
        line = json.dumps({"row": row, "prediction": predictions}, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise BentuneError(f"row {row}: the model gave a score that is not a finite number; check the model") from None
    return line.encode() + b"\n"


def _append(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BentuneError(
            f"{path}: cannot be written ({error.strerror}); make room there and run the same command again: "
            "it resumes after the last whole row"
        ) from error
