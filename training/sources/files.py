"""Labelled rows of files, folders of files or of classes, hub data sets and queries, read one at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bentune.bundle.errors import InputError
from training.recipe.data import DataSettings
from training.sources.database import SQL, Query
from training.sources.hub import hub_source, looks_like_hub, saved_source, was_saved
from training.sources.locate import Location, locate_all
from training.sources.raw import SLICES, Raw, Source, Wanted, raw_row, require_columns
from training.sources.tables import IN_FOLDERS, digest_of, files_digest, several, table_source, tables_in

MAX_TEXT_FILE_BYTES = 10_000_000


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
    if path is not None and was_saved(path):
        return saved_source(path, split, wanted)
    if path is None or (path.is_dir() and looks_like_hub(path)):
        return hub_source(location, data, split, wanted)
    _require_no_split(data, str(path))
    if path.is_dir():
        tables = tables_in(path)
        return _together(path, tables, data, wanted) if tables else _folder(path, data, wanted)
    return table_source(path, data.form, wanted, str(path))


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


def _together(root: Path, files: Sequence[Path], data: DataSettings, wanted: Wanted) -> Source:
    """Join the files of a folder."""
    sources = [table_source(path, data.form, wanted, str(path)) for path in files]

    def read() -> Iterator[Raw]:
        for source in sources:
            yield from source.read()

    return Source(str(root), digest_of(sources), read)


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
            f"data.source: {root} holds no file of rows ({', '.join(IN_FOLDERS)}) and no "
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
