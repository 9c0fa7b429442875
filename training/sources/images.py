"""Labelled images: a folder with one sub-folder per class, or a table with a column of paths or bytes."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bentune.bundle.errors import InputError
from training.recipe.data import DataSettings
from training.sources.files import open_source
from training.sources.image_files import MOST_BYTES, SUFFIXES, file_of, image_of
from training.sources.locate import locate_all
from training.sources.raw import SLICES, Raw, Source
from training.sources.tables import files_digest, several, tables_in


def source_digests(data: DataSettings, also: Sequence[str] = ()) -> list[str]:
    """Return digests of the current rows, including the files that a table names."""
    return [source.digest for source in open_image_sources(data, also)]


def open_image_sources(data: DataSettings, also: Sequence[str] = ()) -> list[Source]:
    """Open the recipe's images as one source; `also` are other columns of a table.

    Raises InputError when the images do not exist, have an unknown form, or lack a column.
    """
    found: dict[Path | str, Source] = {}
    for given in data.sources:
        for location in locate_all(given, "data.source"):
            if location.path is None:
                raise InputError(
                    f"data.source: {given} is not on this machine: give a folder with one sub-folder of images per "
                    "class, or a table with a column of paths"
                )
            found.setdefault(location.path, _located(location.path, data, also))
    sources = list(found.values())
    return [sources[0] if len(sources) == 1 else several(sources)]


def _located(path: Path, data: DataSettings, also: Sequence[str]) -> Source:
    files = _classes(path) if path.is_dir() else []
    if files:
        return _folder(path, files, data, also)
    tables = tables_in(path) if path.is_dir() else [path]
    if not tables:
        raise InputError(
            f"data.source: {path} holds no <class>/<image> ({', '.join(SUFFIXES)}) and no table; give a folder with "
            "one or the other"
        )
    sources = [_table(table, data, also) for table in tables]
    return sources[0] if len(sources) == 1 else several(sources)


def _classes(root: Path) -> list[Path]:
    return sorted(
        file
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith((".", "_"))
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and file.is_file()
    )


def _folder(root: Path, files: Sequence[Path], data: DataSettings, also: Sequence[str]) -> Source:
    if isinstance(data.split.test, str):
        raise InputError(f"data.split.test: {root} has no splits: give the share of rows to hold out, for example 0.2")
    others = {"data.split.group": data.split.group, "data.split.time": data.split.time}
    others |= dict.fromkeys([SLICES] if also else [], next(iter(also), None))
    for key, name in others.items():
        if name is not None:
            raise InputError(f"{key}: {name}: a folder of classes has no other column")

    def read() -> Iterator[Raw]:
        for file in files:
            origin = f"{file.parent.name}/{file.name}"
            if file.stat().st_size > MOST_BYTES:
                problem = f"the image has more than {MOST_BYTES} bytes"
                yield Raw(origin, None, None, file.parent.name, problem)
            else:
                yield Raw(origin, file.read_bytes(), None, file.parent.name)

    return Source(str(root), files_digest(files), read)


def _table(path: Path, data: DataSettings, also: Sequence[str]) -> Source:
    column = data.columns.image
    columns = data.columns.model_copy(update={"text": column})
    table = open_source(data.model_copy(update={"source": str(path), "columns": columns}), data.split.train, also)

    def read() -> Iterator[Raw]:
        for row in table.read():
            try:
                yield replace(row, text=image_of(row.text, path.parent))
            except ValueError as error:
                yield replace(row, text=None, problem=f"column {column!r}: {error}")

    return Source(table.name, _digest(table, path.parent), read)


def _digest(table: Source, folder: Path) -> str:
    """Return the digest of the table and of every file that it names."""
    total = hashlib.sha256(table.digest.encode())
    for row in table.read():
        value = row.text.get("path") if isinstance(row.text, dict) and not row.text.get("bytes") else row.text
        if isinstance(value, str):
            try:
                total.update(files_digest([file_of(value, folder)]).encode())
            except (ValueError, OSError):  # reading the row reports it
                continue
    return total.hexdigest()
