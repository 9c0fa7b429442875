"""Stage `data`: reads the labelled rows, checks each, drops exact duplicates, and holds some out."""

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.model_selection import train_test_split

from service.contract import ROWS, write_json
from service.errors import InputError
from service.row_filter import RowFilter, SeenRows, row_key
from training.recipe import DataSettings, label_text
from training.sources import Raw, Source, open_sources
from training.stage import Context, Summary

POOL = pa.schema([("text", pa.string()), ("text_pair", pa.string()), ("origin", pa.string())])
CHUNK_ROWS = 1000
SAMPLES = 3
SHOWN_LABELS = 20
SURROGATE = re.compile("[\ud800-\udfff]")
NUMBER = re.compile(r"-?[0-9]{1,18}")
Indices = npt.NDArray[np.int64]


@dataclass(slots=True)
class Pool:
    """Checked rows of one source: the texts on disk in `file`; in memory a 16-byte key and the label of each.

    `given_labels` are the labels before `data.labels` renamed them. `kept` has one row for each text, by its row_key;
    the others are duplicates.
    """

    file: Path
    keys: list[bytes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    given_labels: set[str] = field(default_factory=set)
    kept: dict[bytes, int] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def rows(self) -> Indices:
        """The kept rows in the order of their keys, so that nothing depends on their order in the file."""
        return np.array(sorted(self.kept.values(), key=self.keys.__getitem__), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a pool that make up one split."""

    pool: Pool
    rows: Indices

    def take(self, chosen: Indices) -> "Part":
        """The rows in these places, in the order that they have here."""
        return Part(self.pool, self.rows[np.sort(chosen)])

    @property
    def labels(self) -> list[str]:
        """Label of each row."""
        return [self.pool.labels[row] for row in self.rows]


def run(context: Context) -> Summary:
    """Write train.parquet, test.parquet, validation.parquet (if asked for), labels.json and rows.json.

    Raises InputError for rows that cannot be used, a label with a single row, a label with rows to hold out but none to
    train on, fewer than two labels, and a new name in `data.labels` for a label that no row has.
    """
    data, work = context.recipe.data, context.work
    pools: list[Pool] = []
    sources = open_sources(data)
    for number, source in enumerate(sources):
        pools.append(_read(source, data, work / f"pool-{number}.parquet", pools[:number], context))
    where = sources[0].name
    _require_renamed(data, pools, where)
    labels = _label_order({pool.labels[row] for pool in pools for row in pool.kept.values()})
    if len(labels) < 2:
        raise InputError(f"data.source: {where} has only the label {labels[0]!r}; a classifier needs two")
    parts = _split(pools, data, context.recipe.seed, where)
    _require_training_rows(parts, where)
    for name, part in parts.items():
        _write(part, labels, work / f"{name}.parquet")
    for pool in pools:
        pool.file.unlink()
    write_json(work / "labels.json", labels)
    write_json(work / ROWS, _seen(parts))
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


def _seen(parts: dict[str, Part]) -> SeenRows:
    """The filters of what a model of these parts is trained on, the rows that pick its checkpoint included."""

    def row_keys(part: Part) -> list[bytes]:
        by_row = {row: key for key, row in part.pool.kept.items()}
        return [by_row[int(row)] for row in part.rows]

    trained = [key for name, part in parts.items() if name != "test" for key in row_keys(part)]
    return SeenRows(trained=RowFilter.of(trained), held_out=RowFilter.of(row_keys(parts["test"])))


def fingerprint(keys: Iterable[bytes]) -> str:
    """sha256 over the sorted keys of the rows: the same rows have the same fingerprint in any order."""
    return hashlib.sha256(b"".join(sorted(keys))).hexdigest()


def _require_renamed(data: DataSettings, pools: Sequence[Pool], where: str) -> None:
    given = set().union(*(pool.given_labels for pool in pools))
    if unused := sorted(data.labels.keys() - given):
        known = _label_order(given)
        shown = ", ".join(map(repr, known[:SHOWN_LABELS])) + (", ..." if len(known) > SHOWN_LABELS else "")
        raise InputError(f"data.labels: no row of {where} has the label {unused[0]!r}; its labels are {shown}")


def _read(source: Source, data: DataSettings, file: Path, earlier: Sequence[Pool], context: Context) -> Pool:
    pool = Pool(file)
    rows = _usable(source, data, pool, earlier)
    with pq.ParquetWriter(file, POOL) as writer, context.report.task("reading rows", None) as advance:
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            writer.write_table(pa.Table.from_pylist(chunk, POOL))
            advance(len(chunk))
    if not pool.kept:
        dropped = ", ".join(f"{len(origins)} {reason}" for reason, origins in pool.dropped.items())
        raise InputError(f"data.source: {source.name} has no usable row ({dropped or 'it is empty'})")
    return pool


def _usable(source: Source, data: DataSettings, pool: Pool, earlier: Sequence[Pool]) -> Iterator[dict[str, str | None]]:
    for raw in source.read():
        problem = raw.problem or _problem(raw, data)
        if problem is not None:
            if data.invalid_rows == "error":
                raise InputError(
                    f"{source.name}, {raw.origin}: {problem}; mend the row, or set data.invalid_rows to drop"
                )
            pool.dropped.setdefault(re.sub(r" \([^()]*\)$", "", problem), []).append(raw.origin)
            continue
        text, pair = str(raw.text).strip(), str(raw.text_pair).strip() if data.columns.text_pair else None
        given = label_text(raw.label)
        label = data.labels.get(given, given)
        pool.given_labels.add(given)
        # The same text twice could be in training and held out at once.
        same = row_key(text, pair)
        if any(same in other.kept for other in earlier):
            pool.dropped.setdefault("same text as a row of the training split", []).append(raw.origin)
            continue
        row, key = len(pool.keys), _key(text, pair or "", label)
        pool.keys.append(key)
        pool.labels.append(label)
        first = pool.kept.setdefault(same, row)
        if first != row:
            reason = "duplicate" if pool.labels[first] == label else "same text as another row, other label"
            pool.dropped.setdefault(reason, []).append(raw.origin)
            # Of two, the smaller key is kept and not the first, so that it does not depend on their order.
            pool.kept[same] = min(first, row, key=pool.keys.__getitem__)
        yield {"text": text, "text_pair": pair, "origin": raw.origin}


def _problem(raw: Raw, data: DataSettings) -> str | None:
    names = data.columns
    problem = _text_problem(names.text, raw.text)
    if problem is None and names.text_pair is not None:
        problem = _text_problem(names.text_pair, raw.text_pair)
    return problem or _label_problem(names.label, raw.label)


def _text_problem(column: str, text: object) -> str | None:
    if not isinstance(text, str):
        return f"column {column!r} is not a text ({type(text).__name__})"
    if not text.strip():
        return f"column {column!r} is empty"
    return f"column {column!r} holds half of a surrogate pair" if SURROGATE.search(text) else None


def _label_problem(column: str, label: object) -> str | None:
    if not isinstance(label, str | int | float) or not label_text(label):
        return f"column {column!r} has no label ({type(label).__name__})"
    # NaN is what pandas writes where there is none.
    if isinstance(label, float) and not math.isfinite(label):
        return f"column {column!r} has no label ({label})"
    return f"column {column!r} holds half of a surrogate pair" if SURROGATE.search(str(label)) else None


def _label_order(labels: set[str]) -> list[str]:
    numeric = all(NUMBER.fullmatch(label) for label in labels)
    return sorted(labels, key=lambda label: (int(label) if numeric else 0, label))


def _key(*parts: str) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()[:16]


def _split(pools: list[Pool], data: DataSettings, seed: int, where: str) -> dict[str, Part]:
    pool, test_share = pools[0], data.split.test
    if isinstance(test_share, str):
        parts = {"train": Part(pool, pool.rows()), "test": Part(pools[1], pools[1].rows())}
    else:
        train, test = _stratified(Part(pool, pool.rows()), test_share, seed, f"{where}, data.split.test")
        parts = {"train": train, "test": test}
    generator = np.random.default_rng(seed)
    for name, limit in data.rows.model_dump().items():
        part = parts[name]
        if limit is not None and limit < len(part.rows):
            parts[name] = part.take(generator.choice(len(part.rows), limit, replace=False))
    if data.split.validation:
        where_validation = f"{where}, data.split.validation"
        train, validation = _stratified(parts["train"], data.split.validation, seed, where_validation)
        parts |= {"train": train, "validation": validation}
    return parts


def _stratified(part: Part, share: float, seed: int, where: str) -> tuple[Part, Part]:
    label, rows = min(Counter(part.labels).items(), key=lambda item: (item[1], item[0]))
    if rows < 2:
        raise InputError(
            f"{where}: label {label!r} has a single row, and one is needed on each side of the split: "
            "add rows, merge it into another label with data.labels, or remove it"
        )
    try:
        kept, held_out = train_test_split(
            np.arange(len(part.rows)), test_size=share, random_state=seed, stratify=part.labels
        )
    except ValueError as error:
        raise InputError(f"{where}: {len(part.rows)} rows cannot be split at {share}: {error}") from error
    return part.take(kept), part.take(held_out)


def _require_training_rows(parts: dict[str, Part], where: str) -> None:
    trained = set(parts["train"].labels)
    for name, part in parts.items():
        missing = Counter(label for label in part.labels if label not in trained)
        if missing:
            label, rows = missing.most_common(1)[0]
            raise InputError(
                f"{where}: label {label!r} has {rows} {name} rows and none to train on: add rows, raise "
                "data.rows.train, or merge it into another label with data.labels"
            )


def _write(part: Part, labels: list[str], file: Path) -> None:
    index = {label: number for number, label in enumerate(labels)}
    wanted = np.zeros(len(part.pool.keys), dtype=bool)
    wanted[part.rows] = True
    first = 0
    with pq.ParquetWriter(file, POOL.append(pa.field("label", pa.int64()))) as writer:
        for batch in pq.ParquetFile(part.pool.file).iter_batches(batch_size=CHUNK_ROWS):
            # A row that is not kept may have a label that no kept row has.
            numbers = [index.get(label, -1) for label in part.pool.labels[first : first + len(batch)]]
            table = pa.Table.from_batches([batch]).append_column("label", pa.array(numbers, pa.int64()))
            writer.write_table(table.filter(pa.array(wanted[first : first + len(batch)])))
            first += len(batch)
