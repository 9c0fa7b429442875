"""Rows of hub data sets, of local folders with their layout, and of folders that `datasets` has saved.

`datasets` says which files a split has, and our own reader reads those of rows: the readers of `datasets` take NA and
null for nothing, "01" for 1 and "true" for a truth value.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bentune.bundle.errors import InputError
from bentune.bundle.rows.tables import named_class
from training.recipe.data import DataSettings
from training.sources.locate import Location, offline, why_not
from training.sources.raw import Raw, Source, Wanted, raw_row, require_columns
from training.sources.tables import IN_FOLDERS, files_digest, several, table_source, tables_in

SAVED = ("dataset_info.json", "dataset_dict.json")
TEXT_FILES = tuple(suffix for suffix in IN_FOLDERS if suffix not in (".parquet", ".xlsx"))


def looks_like_hub(path: Path) -> bool:
    """Return True for a folder with the layout of a hub repository: a card and data files.

    A folder of classes has folders of texts, and a folder that grows has files of rows and no card.
    """
    if any(path.glob("*/*.txt")):
        return False
    return (path / "README.md").is_file() or (not tables_in(path) and any(path.glob("**/*.parquet")))


def hub_source(location: Location, data: DataSettings, split: str, wanted: Wanted) -> Source:
    """Return the rows of one split of a hub data set, or of a local folder with its layout. Raises InputError."""
    import datasets

    datasets.disable_progress_bars()
    if location.path is None:
        datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE or offline()
    name = str(location.path or location.name)
    try:
        builder = datasets.load_dataset_builder(name, data.config)
    except Exception as error:  # of the hub, of pyarrow, of the file system, or of datasets itself
        raise _not_loaded(location, split, error) from error
    found = dict(builder.config.data_files or {})
    files = [str(file) for file in found.get(split, ())]
    if files and all(file.lower().endswith(IN_FOLDERS) for file in files):
        return _of_files(location, split, files, _classes(builder.info.features, wanted), data, wanted)
    if any(file.lower().endswith(TEXT_FILES) for own in found.values() for file in map(str, own)):
        raise InputError(
            f"data.source: {name}, split {split!r}: Bad split: {split}. Available splits: {sorted(map(str, found))}; "
            "limit the rows by data.rows"
        )
    return _of_datasets(location, data, split, wanted)


def was_saved(path: Path) -> bool:
    """Return True for a folder that `save_to_disk` of datasets has written."""
    return path.is_dir() and any((path / name).is_file() for name in SAVED) and bool(_arrow_files(path))


def saved_source(path: Path, split: str, wanted: Wanted) -> Source:
    """Return the rows that `save_to_disk` has written, of one split where there are several. Raises InputError."""
    import datasets

    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # of pyarrow, of the file system, or of datasets itself
        raise InputError(f"data.source: {path}: {one_line(error)}") from error
    if isinstance(table, datasets.DatasetDict):
        if split not in table:
            raise InputError(f"data.source: {path} has no split {split!r}; it has {', '.join(map(repr, table))}")
        table = table[split]
    return _table(table, f"{path.name} {split}", f"{path} ({split})", files_digest(_visible_files(path)), wanted)


def one_line(error: Exception) -> str:
    """Return a library's message on one line, that of the cause where there is one."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _of_files(
    location: Location, split: str, files: Sequence[str], classes: Sequence[str], data: DataSettings, wanted: Wanted
) -> Source:
    try:
        paths = [Path(file) if location.path is not None else _fetched(file) for file in files]
    except Exception as error:  # of the hub or its file system
        raise _not_loaded(location, split, error) from error
    sources = [table_source(path, data.form, wanted, f"{path.parent.name}/{path.name}", classes) for path in paths]
    joined = several(sources)
    # The card has the names of the classes.
    cards = [location.path / "README.md"] if location.path and (location.path / "README.md").is_file() else []
    digest = hashlib.sha256(f"{joined.digest}{files_digest(cards)}".encode()).hexdigest()

    def read() -> Iterator[Raw]:
        for row in joined.read():
            yield replace(row, origin=f"{location.name} {split}, {row.origin}")

    return Source(f"{location.name} ({split})", digest, read)


def _fetched(url: str) -> Path:
    """Download one file of a hub data set; its address has the revision that `datasets` has resolved."""
    from huggingface_hub import HfFileSystem, hf_hub_download

    place = HfFileSystem().resolve_path(url)
    return Path(hf_hub_download(place.repo_id, place.path_in_repo, repo_type=place.repo_type, revision=place.revision))


def _of_datasets(location: Location, data: DataSettings, split: str, wanted: Wanted) -> Source:
    """Return the rows of files that only `datasets` reads, such as Arrow."""
    import datasets

    local = location.path is not None
    name = str(location.path or location.name)
    try:
        # The cache of datasets does not notice that a local repository's files changed; streaming does without it.
        table = datasets.load_dataset(name, data.config, split=split, streaming=local)
        table = table._resolve_features() if local else table
    except Exception as error:  # of the hub, of pyarrow, of the file system, or of datasets itself
        raise _not_loaded(location, split, error) from error
    if location.path is not None:
        digest = files_digest(_visible_files(location.path))
    else:
        # The fingerprint that datasets keeps for its cache stands for the rows and the version on the hub.
        digest = hashlib.sha256(str(table._fingerprint).encode()).hexdigest()
    return _table(table, f"{location.name} {split}", f"{location.name} ({split})", digest, wanted)


def _table(table: Any, origin: str, name: str, digest: str, wanted: Wanted) -> Source:
    import datasets

    require_columns(wanted, table.column_names, name)
    table = table.select_columns(wanted.all)
    classes = _classes(table.features, wanted)

    def read() -> Iterator[Raw]:
        number = -1
        try:
            for number, values in enumerate(table):
                row = raw_row(f"{origin} row {number}", values, wanted)
                yield replace(row, label=named_class(row.label, classes)) if classes else row
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            raise InputError(f"data.source: {name} cannot be read after row {number}: {one_line(error)}") from error

    return Source(name, digest, read)


def _classes(features: Any, wanted: Wanted) -> list[str]:
    """Return the names of the label's classes; none where labels are written as they are."""
    import datasets

    feature = (features or {}).get(wanted.names.label)
    feature = getattr(feature, "feature", feature)  # of a list, what is in it
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else []


def _not_loaded(location: Location, split: str, error: Exception) -> InputError:
    if location.path is None and isinstance(error, ConnectionError | FileNotFoundError):
        return InputError(f"data.source: {location.name} could not be loaded: {why_not()}")
    return InputError(f"data.source: {location.path or location.name}, split {split!r}: {one_line(error)}")


def _arrow_files(path: Path) -> list[Path]:
    return [*path.glob("*.arrow"), *path.glob("*/*.arrow")]


def _visible_files(root: Path) -> list[Path]:
    hidden = (".", "_")
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(hidden) for part in path.relative_to(root).parts)
    ]
