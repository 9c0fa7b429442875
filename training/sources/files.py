"""Labelled rows of files, folders of files or of classes, hub data sets and queries, read one at a time."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bentune.bundle.errors import InputError
from bentune.bundle.rows import columns as file_columns
from bentune.bundle.rows import read_rows
from training.recipe.data import DataSettings
from training.sources.database import SQL, Query
from training.sources.locate import Location, locate_all, offline, why_not
from training.sources.raw import SLICES, Raw, Source, Wanted, raw_row, require_columns

MAX_TEXT_FILE_BYTES = 10_000_000
TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
PARQUET = ".parquet"
SHOWN_SOURCES = 3


def source_digests(data: DataSettings, also: Sequence[str] = ()) -> list[str]:
    """Return a digest of the current rows for each source to open."""
    return [source.digest for source in open_sources(data, also)]


def open_sources(data: DataSettings, also: Sequence[str] = ()) -> list[Source]:
    """Open the training rows, and the test rows where `data.split.test` names a split."""
    splits = [data.split.train, data.split.test] if isinstance(data.split.test, str) else [data.split.train]
    return [open_source(data, split, also) for split in splits]


def open_source(data: DataSettings, split: str, also: Sequence[str] = ()) -> Source:
    """Open the recipe's data, with the further columns `also`.

    Only hub data sets use `split`. Raises InputError when the data does not exist, has an unknown form, or lacks a
    column.
    """
    wanted = Wanted(data.columns, also, data.split.group, data.split.time)
    found: dict[Path | str, Source] = {}
    for given in data.sources:
        if data.query is not None and given.startswith(SQL):
            _require_no_split(data, given)
            found[given] = _database(Query.of(given, data.query), wanted)
            continue
        for location in locate_all(given, "data.source"):
            # A file that matches two of the sources is read once.
            found.setdefault(location.path or location.name, _located(location, data, split, wanted))
    sources = list(found.values())
    return sources[0] if len(sources) == 1 else several(sources)


def _located(location: Location, data: DataSettings, split: str, wanted: Wanted) -> Source:
    path = location.path
    if path is None or (path.is_dir() and _looks_like_hub(path)):
        return _hub(location, data, split, wanted)
    _require_no_split(data, str(path))
    if path.is_dir():
        tables = tables_in(path)
        return _together(path, tables, wanted) if tables else _folder(path, data, wanted)
    return _file(path, wanted)


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

    return Source(f"{shown} and {more} more" if more > 0 else shown, _digest_of(sources), read)


def _digest_of(sources: Sequence[Source]) -> str:
    return hashlib.sha256("".join(sorted(source.digest for source in sources)).encode()).hexdigest()


def _require_no_split(data: DataSettings, where: str) -> None:
    if isinstance(data.split.test, str):
        raise InputError(
            f"data.split.test: {data.split.test!r} is a split of a hub data set, and {where} has no splits: "
            "give the share of rows to hold out, for example 0.2"
        )


def _database(query: Query, wanted: Wanted) -> Source:
    name = f"{SQL}{query.variable}"
    require_columns(wanted, query.columns(), name)

    def read() -> Iterator[Raw]:
        for number, row in enumerate(query.rows()):
            yield raw_row(f"{name} row {number}", row, wanted)

    return Source(name, query.digest(wanted.all), read)


def tables_in(root: Path) -> list[Path]:
    """List the files of rows directly in a folder, sorted by name.

    A folder of classes has no such file.
    """
    if any(root.glob("*/*.txt")):
        return []
    found = (path for path in root.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    return sorted(path for path in found if path.suffix.lower() in (*TEXT_SUFFIXES, PARQUET))


def _together(root: Path, files: Sequence[Path], wanted: Wanted) -> Source:
    """Join the files of a folder."""
    sources = [_file(path, wanted) for path in files]

    def read() -> Iterator[Raw]:
        for source in sources:
            yield from source.read()

    return Source(str(root), _digest_of(sources), read)


def _file(path: Path, wanted: Wanted) -> Source:
    return _parquet(path, wanted) if path.suffix.lower() == PARQUET else _text_file(path, wanted)


def _text_file(path: Path, wanted: Wanted) -> Source:
    if path.suffix.lower() not in TEXT_SUFFIXES:
        raise InputError(
            f"data.source: {path} has the unknown suffix {path.suffix or 'none'!r}; "
            f"give one of {', '.join((*TEXT_SUFFIXES, PARQUET))}, a folder of these, or one with a sub-folder per class"
        )
    require_columns(wanted, file_columns(path), path)

    def read() -> Iterator[Raw]:
        for row in read_rows(path):
            yield raw_row(f"{path.name} line {row.line}", row.values, wanted)

    return Source(str(path), files_digest([path]), read)


def _parquet(path: Path, wanted: Wanted) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"data.source: {path} is not a Parquet file: {_line(error)}") from error
    require_columns(wanted, file.schema_arrow.names, path)

    def read() -> Iterator[Raw]:
        number = 0
        try:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=1000, columns=wanted.all):
                for values in batch.to_pylist():
                    yield raw_row(f"{path.name} row {number}", values, wanted)
                    number += 1
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise InputError(f"data.source: {path} cannot be read after row {number}: {_line(error)}") from error

    return Source(str(path), files_digest([path]), read)


def _folder(root: Path, data: DataSettings, wanted: Wanted) -> Source:
    files = sorted(
        path
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith((".", "_"))
        for path in folder.iterdir()
        if path.suffix.lower() == ".txt" and path.is_file()
    )
    if not files:
        raise InputError(
            f"data.source: {root} holds no file of rows ({', '.join((*TEXT_SUFFIXES, PARQUET))}) and no "
            "<class>/<text>.txt; give a folder with one or the other"
        )
    if wanted.names.text_pair is not None:
        raise InputError(f"data.columns.text_pair: {wanted.names.text_pair}: a folder of classes has no second text")
    if data.multi_label:
        raise InputError(
            f"data.multi_label: {root} is a folder of classes, which gives each text one label: leave it out, or put "
            "the texts and their labels into a file"
        )
    if wanted.also:
        raise InputError(f"{SLICES}: {wanted.also[0]}: a folder of classes has no other column to slice by")
    for key, name in wanted.keyed:
        if name in {wanted.group, wanted.time}:
            raise InputError(f"{key}: {name}: a folder of classes has no other column to split by")

    def read() -> Iterator[Raw]:
        for path in files:
            origin = f"{path.parent.name}/{path.name}"
            if path.stat().st_size > MAX_TEXT_FILE_BYTES:
                yield Raw(origin, None, None, path.parent.name, f"larger than {MAX_TEXT_FILE_BYTES} bytes")
                continue
            content = path.read_bytes()
            try:
                yield Raw(origin, content.decode("utf-8-sig"), None, path.parent.name)
            except UnicodeDecodeError as error:
                problem = f"not UTF-8 (byte 0x{content[error.start]:02x} at {error.start})"
                yield Raw(origin, None, None, path.parent.name, problem)

    return Source(str(root), files_digest(files), read)


def _looks_like_hub(path: Path) -> bool:
    # A hub repository has a card and data files. A folder of classes has folders of texts, a folder of rows no card.
    if any(path.glob("*/*.txt")):
        return False
    return (path / "README.md").is_file() or (not tables_in(path) and any(path.glob("**/*.parquet")))


def _hub(location: Location, data: DataSettings, split: str, wanted: Wanted) -> Source:
    import datasets

    local = location.path is not None
    name = str(location.path or location.name)
    datasets.disable_progress_bars()
    if not local:
        datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE or offline()
    try:
        # Streaming avoids the cache of datasets, which ignores changed files of a local repository.
        table = datasets.load_dataset(name, data.config, split=split, streaming=local)
        table = table._resolve_features() if local else table
    except Exception as error:  # the hub, pyarrow, the file system and datasets share no base class
        if not local and isinstance(error, ConnectionError | FileNotFoundError):
            raise InputError(f"data.source: {location.name} could not be loaded: {why_not()}") from error
        raise InputError(f"data.source: {name}, split {split!r}: {_line(error)}") from error
    require_columns(wanted, table.column_names, location.name)
    table = table.select_columns(wanted.all)
    feature = table.features[wanted.names.label]
    feature = getattr(feature, "feature", feature)  # a list's element
    classes = feature.names if isinstance(feature, datasets.ClassLabel) else None

    def read() -> Iterator[Raw]:
        number = -1
        try:
            for number, values in enumerate(table):
                row = raw_row(f"{location.name} {split} row {number}", values, wanted)
                yield row if classes is None else replace(row, label=_named(row.label, classes))
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            raise InputError(f"data.source: {name} cannot be read after row {number}: {_line(error)}") from error

    if location.path is not None:
        digest = files_digest(_visible_files(location.path))
    else:
        # The cache fingerprint of datasets depends on the rows and the version on the hub.
        digest = hashlib.sha256(str(table._fingerprint).encode()).hexdigest()
    return Source(f"{location.name} ({split})", digest, read)


def _named(label: object, classes: Sequence[str]) -> object:
    """Replace a number, or each number in a list, by its class name."""
    if isinstance(label, list):
        return [_named(one, classes) for one in label]
    return classes[label] if isinstance(label, int) and 0 <= label < len(classes) else label


def _visible_files(root: Path) -> list[Path]:
    hidden = (".", "_")
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(hidden) for part in path.relative_to(root).parts)
    ]


def _line(error: Exception) -> str:
    """Return the first line of an error's message, or of its cause's message."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def files_digest(files: Iterable[Path]) -> str:
    """Return a sha256 that changes with the contents, names and folders of the files."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        total.update(path.name.encode() + b"\0" + path.parent.name.encode() + b"\0" + content)
    return total.hexdigest()
