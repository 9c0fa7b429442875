"""Tables of rows: one file of any known form, several as one, and those of a folder."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bentune.bundle.errors import InputError
from bentune.bundle.rows.form import FileForm
from bentune.bundle.rows.header import require_columns
from bentune.bundle.rows.read import EXCEL, PARQUET, SUFFIXES, TEXT, every_row, suffix_of
from bentune.bundle.rows.tables import named_class, parquet_rows
from training.sources.raw import Raw, Source, Wanted, raw_row

TABLES = tuple(suffix for suffix in SUFFIXES if suffix != TEXT)
IN_FOLDERS = (".csv", ".tsv", ".jsonl", ".ndjson", PARQUET, EXCEL, ".csv.gz", ".tsv.gz", ".jsonl.gz", ".ndjson.gz")
"""Suffixes of the files of rows in a folder; a .json there may be anything."""
SHOWN_SOURCES = 3


def table_source(path: Path, form: FileForm, wanted: Wanted, name: str, classes: Sequence[str] = ()) -> Source:
    """Return the rows of one file, called `name`.

    `classes` are the names of labels that the file has as numbers. A row that cannot be read has a problem. Raises
    InputError for an unknown suffix and a missing column.
    """
    try:
        suffix = suffix_of(path)
    except InputError as error:
        raise InputError(f"data.source: {error}") from None
    if suffix == TEXT:
        raise InputError(
            f"data.source: {path} is a text file, and its lines have no labels; give one of {', '.join(TABLES)}, a "
            "folder of these, or one with a sub-folder per class"
        )
    require_columns(path, wanted.keyed, form)
    rows_are_numbered = suffix == PARQUET

    def read() -> Iterator[Raw]:
        rows = parquet_rows(path, wanted.all) if rows_are_numbered else every_row(path, form, label=wanted.names.label)
        for row in rows:
            place = f"row {row.number}" if rows_are_numbered else f"line {row.line}"
            if row.problem is not None:
                yield Raw(f"{path.name} {place}", None, None, None, row.problem)
                continue
            raw = raw_row(f"{path.name} {place}", row.values, wanted)
            yield replace(raw, label=_class_of(raw.label, classes)) if classes else raw

    return Source(name, files_digest([path]), read)


def _class_of(label: object, classes: Sequence[str]) -> object:
    """Return the name of a class for its number, which text files have as digits."""
    if isinstance(label, str) and label.isdecimal() and label not in classes:
        label = int(label)
    return named_class(label, classes)


def several(sources: Sequence[Source]) -> Source:
    """Join sources into one, with a digest that does not depend on their order."""
    shown = ", ".join(source.name for source in sources[:SHOWN_SOURCES])
    more = len(sources) - SHOWN_SOURCES
    names = Counter(Path(source.name).name for source in sources)

    def read() -> Iterator[Raw]:
        for source in sources:
            alone = names[Path(source.name).name] == 1
            for row in source.read():
                yield row if alone else replace(row, origin=f"{source.name}, {row.origin}")

    return Source(f"{shown} and {more} more" if more > 0 else shown, digest_of(sources), read)


def digest_of(sources: Sequence[Source]) -> str:
    """Return a digest of all sources that does not depend on their order."""
    return hashlib.sha256("".join(sorted(source.digest for source in sources)).encode()).hexdigest()


def tables_in(root: Path) -> list[Path]:
    """List the files of rows directly in a folder, sorted by name.

    A folder of classes has no such file.
    """
    if any(root.glob("*/*.txt")):
        return []
    found = (path for path in root.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    return sorted(path for path in found if path.name.lower().endswith(IN_FOLDERS))


def files_digest(files: Iterable[Path]) -> str:
    """Return a sha256 that changes with the contents, names and folders of the files."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        total.update(path.name.encode() + b"\0" + path.parent.name.encode() + b"\0" + content)
    return total.hexdigest()
