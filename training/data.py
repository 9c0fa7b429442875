"""Stage `data`: reads the labelled rows, checks each, drops exact duplicates, and holds some out."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.model_selection import train_test_split

from service.contract import write_json
from service.errors import InputError
from training.recipe import DataSettings
from training.sources import Raw, Source, open_source
from training.stage import Context, Summary

POOL = pa.schema([("text", pa.string()), ("text_pair", pa.string()), ("origin", pa.string())])
CHUNK_ROWS = 1000
SAMPLES = 3
Indices = npt.NDArray[np.int64]


@dataclass(slots=True)
class Pool:
    """Checked rows of one source: the texts on disk in `file`; in memory a 16-byte key and the label of each."""

    file: Path
    keys: list[bytes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a pool that make up one split."""

    pool: Pool
    rows: Indices

    @property
    def labels(self) -> list[str]:
        """Label of each row."""
        return [self.pool.labels[row] for row in self.rows]


def source_digests(data: DataSettings) -> list[str]:
    """What the rows are at this moment: the stage is redone when this changes."""
    return [open_source(data, split).digest for split in _hub_splits(data)]


def run(context: Context) -> Summary:
    """Write train.parquet, test.parquet, validation.parquet (if asked for) and labels.json.

    Raises InputError for rows that cannot be used, a label with a single row, and fewer than two labels.
    """
    data, work = context.recipe.data, context.work
    sources = [open_source(data, split) for split in _hub_splits(data)]
    seen: dict[bytes, str] = {}
    pools = [_read(source, data, work / f"pool-{n}.parquet", seen, context) for n, source in enumerate(sources)]
    labels = _label_order({label for pool in pools for label in pool.labels})
    if len(labels) < 2:
        raise InputError(f"data.source: {sources[0].name} has only the label {labels[0]!r}; a classifier needs two")
    parts = _split(pools, data, context.recipe.seed, sources[0].name)
    for name, part in parts.items():
        _write(part, labels, work / f"{name}.parquet")
    for pool in pools:
        pool.file.unlink()
    write_json(work / "labels.json", labels)
    return {
        "source": [source.name for source in sources],
        "fingerprint": fingerprint(part.pool.keys[row] for part in parts.values() for row in part.rows),
        "labels": labels,
        "rows": {name: len(part.rows) for name, part in parts.items()},
        "rows_by_label": {name: dict(Counter(part.labels).most_common()) for name, part in parts.items()},
        "dropped": {
            reason: {"rows": len(origins), "samples": origins[:SAMPLES]}
            for pool in pools
            for reason, origins in pool.dropped.items()
        },
    }


def fingerprint(keys: Iterator[bytes]) -> str:
    """sha256 over the sorted keys of the rows: the same rows have the same fingerprint in any order."""
    return hashlib.sha256(b"".join(sorted(keys))).hexdigest()


def _hub_splits(data: DataSettings) -> list[str]:
    return [data.split.train, data.split.test] if isinstance(data.split.test, str) else [data.split.train]


def _read(source: Source, data: DataSettings, file: Path, seen: dict[bytes, str], context: Context) -> Pool:
    pool = Pool(file)
    rows = _usable(source, data, pool, seen)
    with pq.ParquetWriter(file, POOL) as writer, context.report.task("reading rows", None) as advance:
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            writer.write_table(pa.Table.from_pylist(chunk, POOL))
            advance(len(chunk))
    if not pool.keys:
        dropped = ", ".join(f"{len(origins)} {reason}" for reason, origins in pool.dropped.items())
        raise InputError(f"data.source: {source.name} has no usable row ({dropped or 'it is empty'})")
    return pool


def _usable(source: Source, data: DataSettings, pool: Pool, seen: dict[bytes, str]) -> Iterator[dict[str, str | None]]:
    for raw in source.read():
        problem = raw.problem or _problem(raw, data)
        if problem is not None:
            if data.invalid_rows == "error":
                raise InputError(
                    f"{source.name}, {raw.origin}: {problem}; mend the row, or set data.invalid_rows to drop"
                )
            pool.dropped.setdefault(problem.partition(" (")[0], []).append(raw.origin)
            continue
        text, pair = str(raw.text).strip(), str(raw.text_pair).strip() if data.columns.text_pair else None
        label = label_text(raw.label)
        label = data.labels.get(label, label)
        # The same text twice could be in training and held out at once.
        same = _key(*(" ".join(part.casefold().split()) for part in (text, pair or "")))
        if same in seen:
            reason = "exact duplicate" if seen[same] == label else "same text as an earlier row, other label"
            pool.dropped.setdefault(reason, []).append(raw.origin)
            continue
        seen[same] = label
        pool.keys.append(_key(text, pair or "", label))
        pool.labels.append(label)
        yield {"text": text, "text_pair": pair, "origin": raw.origin}


def _problem(raw: Raw, data: DataSettings) -> str | None:
    texts = {data.columns.text: raw.text}
    if data.columns.text_pair is not None:
        texts[data.columns.text_pair] = raw.text_pair
    for column, text in texts.items():
        if not isinstance(text, str):
            return f"column {column!r} is not a text ({type(text).__name__})"
        if not text.strip():
            return f"column {column!r} is empty"
    if not isinstance(raw.label, str | int | float) or not label_text(raw.label):
        return f"column {data.columns.label!r} has no label ({type(raw.label).__name__})"
    return None


def label_text(label: object) -> str:
    """A label as it is served: numbers without a needless fraction, so that 5, 5.0 and "5" are one label."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label).strip()


def _label_order(labels: set[str]) -> list[str]:
    numeric = all(label.lstrip("-").isdecimal() for label in labels)
    return sorted(labels, key=int) if numeric else sorted(labels)


def _key(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


def _split(pools: list[Pool], data: DataSettings, seed: int, where: str) -> dict[str, Part]:
    pool, test_share = pools[0], data.split.test
    # In the order of their keys, so that the split does not depend on the order in the file.
    rows = np.array(sorted(range(len(pool.keys)), key=pool.keys.__getitem__), dtype=np.int64)
    if isinstance(test_share, str):
        test = np.array(sorted(range(len(pools[1].keys)), key=pools[1].keys.__getitem__), dtype=np.int64)
        parts = {"train": Part(pool, rows), "test": Part(pools[1], test)}
    else:
        train, test = _stratified(Part(pool, rows), test_share, seed, f"{where}, data.split.test")
        parts = {"train": Part(pool, train), "test": Part(pool, test)}
    generator = np.random.default_rng(seed)
    for name, limit in data.rows.model_dump().items():
        part = parts[name]
        if limit is not None and limit < len(part.rows):
            parts[name] = Part(part.pool, np.sort(generator.choice(part.rows, limit, replace=False)))
    if data.split.validation:
        where_validation = f"{where}, data.split.validation"
        train, validation = _stratified(parts["train"], data.split.validation, seed, where_validation)
        parts |= {"train": Part(pool, train), "validation": Part(pool, validation)}
    return parts


def _stratified(part: Part, share: float, seed: int, where: str) -> tuple[Indices, Indices]:
    label, rows = min(Counter(part.labels).items(), key=lambda item: item[1])
    if rows < 2:
        raise InputError(
            f"{where}: label {label!r} has a single row, and one is needed on each side of the split: "
            "add rows, merge it into another label with data.labels, or remove it"
        )
    try:
        kept, held_out = train_test_split(part.rows, test_size=share, random_state=seed, stratify=part.labels)
    except ValueError as error:
        raise InputError(f"{where}: {len(part.rows)} rows cannot be split at {share}: {error}") from error
    return np.sort(kept), np.sort(held_out)


def _write(part: Part, labels: list[str], file: Path) -> None:
    index = {label: number for number, label in enumerate(labels)}
    wanted = np.zeros(len(part.pool.keys), dtype=bool)
    wanted[part.rows] = True
    first = 0
    with pq.ParquetWriter(file, POOL.append(pa.field("label", pa.int64()))) as writer:
        for batch in pq.ParquetFile(part.pool.file).iter_batches(batch_size=CHUNK_ROWS):
            numbers = [index[label] for label in part.pool.labels[first : first + len(batch)]]
            table = pa.Table.from_batches([batch]).append_column("label", pa.array(numbers, pa.int64()))
            writer.write_table(table.filter(pa.array(wanted[first : first + len(batch)])))
            first += len(batch)
