"""Offline scoring of a file with the service's own predictor, safe to interrupt.

    OUT.jsonl.partial             the finished lines; locked while a process writes it
    OUT.jsonl.partial.meta.json   the inputs of those lines, so that only the same work is resumed
    OUT.jsonl                     the partial under its final name, once it has every row

Each row is scored once, however often the work is interrupted. OUT.csv and OUT.parquet are made of the partial and the
input at the end: see `rollout.predict_tables`.
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
from bentune.bundle.rows.form import UTF8, FileForm
from bentune.bundle.rows.read import columns as columns_of
from bentune.bundle.rows.read import every_row, read_rows
from bentune.bundle.rows.row import Row, text_of
from bentune.bundle.targets.target import Prediction
from rollout.predict_tables import require_free, table_writer


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
    """Rows of the output, rows that an earlier run had finished, and wall seconds of this run.

    `errors` of the rows have an error in place of a prediction; `first_error` is this run's first one, or empty.
    """

    rows: int
    errors: int
    first_error: str
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
    form: str
    strict: bool


def predict_file(
    scorer: Scorer,
    input_path: Path,
    output_path: Path,
    *,
    text_column: str = "text",
    pair_column: str | None = None,
    form: FileForm = UTF8,
    strict: bool = False,
    top_k: int | None = None,
    chunk_rows: int = 512,
    progress: Callable[[int], None],
    overwrite: bool = False,
) -> PredictSummary:
    """Write the predictions of each row, in the file's order.

    A line of JSON is `{"row": n, "prediction": [{"label": ..., "score": ...}, ...]}`. For a row that cannot be read or
    has no text it is `{"row": n, "error": "..."}`; with `strict` such a row is an error. An output whose name ends in
    .csv or .parquet has the input's columns and the best label. Rows are scored and flushed to disk `chunk_rows` at a
    time. After any interruption, the same call resumes after the last whole line. `progress` is called at the start and
    after each chunk with the total of finished rows, those of earlier runs included. `overwrite` replaces an existing
    output, and a partial of other work.

    Raises:
        InputError: bad arguments, a file that loses rows, with `strict` a bad row, an existing output, a partial that
            belongs to other work or that another process is writing. Chunks before a bad row stay.
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
    rows = (read_rows if strict else every_row)(input_path, form)
    write = table_writer(output_path)
    names = columns_of(input_path, form)
    if write is not None:
        require_free(names)
    _refuse_finished(output_path, overwrite)
    guard = _Guard(
        sha256_file(input_path), scorer.digest, text_column, pair_column, top_k, form.model_dump_json(), strict
    )
    columns = (text_column,) if pair_column is None else (text_column, pair_column)

    with _locked(partial_path) as partial:
        _refuse_finished(output_path, overwrite)  # again: the former holder of the lock may have finished it
        resumed_at, errors = _resume(partial, partial_path, meta_path, guard, overwrite)
        done, first_error = resumed_at, ""
        progress(done)
        for _ in islice(rows, done):
            pass
        while chunk := list(islice(rows, chunk_rows)):
            answers = _answers(scorer, chunk, columns, input_path, strict=strict)
            said = [answer for answer in answers if isinstance(answer, str)]
            first_error, errors = first_error or next(iter(said), ""), errors + len(said)
            lines = b"".join(_line(row.number, answer, top_k) for row, answer in zip(chunk, answers, strict=True))
            with _writing(partial_path):
                _append(partial, lines)
            done += len(chunk)
            progress(done)
        with _writing(output_path):
            if write is None:
                partial_path.replace(output_path)
            else:
                write(names, every_row(input_path, form), partial_path, output_path)
                partial_path.unlink()
            meta_path.unlink(missing_ok=True)
            sync_directory(output_path.parent)
    return PredictSummary(done, errors, first_error, resumed_at, time.monotonic() - started)


def _answers(
    scorer: Scorer, chunk: Sequence[Row], columns: Sequence[str], path: Path, *, strict: bool
) -> list[list[Prediction] | str]:
    """Return the predictions of each row, or why it has none."""
    answers: list[list[Prediction] | str] = ["" for _ in chunk]
    texts: dict[int, tuple[str, str | None]] = {}
    for place, row in enumerate(chunk):
        try:
            if row.problem is not None:
                raise InputError(f"{path}, row {row.number} (line {row.line}): {row.problem}")
            found = [text_of(row, column, path) for column in columns]
            texts[place] = found[0], found[1] if len(found) > 1 else None
        except InputError as error:
            if strict:
                raise
            answers[place] = str(error)
    for place, answer in zip(texts, _scored(scorer, [*texts.values()]), strict=True):
        if isinstance(answer, str) and strict:
            raise InputError(f"{path}, row {chunk[place].number} (line {chunk[place].line}): {answer}")
        answers[place] = answer
    return answers


def _scored(scorer: Scorer, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction] | str]:
    """Score the texts together, or one by one where the scorer refuses one of them."""
    if not texts:
        return []
    try:
        return [*scorer.score(texts)]
    except RequestError as error:
        if len(texts) == 1:
            return [str(error)]
    return [answer for text in texts for answer in _scored(scorer, [text])]


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


def _resume(partial: FileIO, path: Path, meta_path: Path, guard: _Guard, overwrite: bool) -> tuple[int, int]:
    """Cut the partial after its last whole line, and return its rows and how many of them are errors."""
    try:
        rows, errors, size = _whole_lines(path)
        if rows:
            _check_guard(path, meta_path, guard)
    except InputError:
        if not overwrite:
            raise
        rows = errors = size = 0
    with _writing(path):
        partial.truncate(size)
        if not rows:
            # Only once the partial is empty: a meta file must never describe another run's lines.
            write_json(meta_path, asdict(guard))
    return rows, errors


def _whole_lines(path: Path) -> tuple[int, int, int]:
    """Count the lines, the errors among them, and the bytes of a partial up to its last line end.

    Raises InputError unless they are rows 0, 1, 2...
    """
    rows = errors = size = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            answered = (
                isinstance(record, dict) and record.get("row") == rows and {"prediction", "error"} & record.keys()
            )
            if not answered:
                raise InputError(f"{path}, line {rows + 1}: not the line of row {rows}; {_way_out(path)}")
            rows += 1
            errors += "error" in record
            size += len(line)
    return rows, errors, size


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


def _line(row: int, answer: Sequence[Prediction] | str, top_k: int | None) -> bytes:
    found = {"error": answer} if isinstance(answer, str) else {"prediction": answer[:top_k]}
    try:
        line = json.dumps({"row": row, **found}, ensure_ascii=False, allow_nan=False)
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
