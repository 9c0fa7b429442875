"""Stage `data`: reads the labelled rows, checks each, drops exact duplicates, and holds some out."""

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.contract import ROWS, write_json
from service.errors import InputError
from service.row_filter import RowFilter, SeenRows, row_key
from training.data_settings import DataSettings, label_text
from training.doubtful_labels import find_doubtful
from training.parent import open_parent, require_alike, require_labels
from training.pool import POOL, Part, Pool
from training.recipe import Recipe
from training.sources import Raw, Source, open_sources
from training.split import Split, require_training_rows, split_afresh, split_onward
from training.stage import Context, Summary

HELD_OUT = "held_out.jsonl"
CHUNK_ROWS = 1000
SAMPLES = 3
SHOWN_LABELS = 20
MOST_CHARACTERS = 100
SURROGATE = re.compile("[\ud800-\udfff]")
NUMBER = re.compile(r"-?[0-9]{1,18}")


def run(context: Context) -> Summary:
    """Write train.parquet, test.parquet, validation.parquet (if asked for), labels.json, rows.json and doubtful.jsonl.

    With a parent also held_out.jsonl: the rows of test.parquet for `bentune compare`, with a column `set` that says
    `reference` of what the parent held out, `relabelled` where that has another label now, and `fresh` of the others,
    and the columns that the recipe's `compare` slices by.

    Raises InputError for rows that cannot be used, a label with a single row, a label with rows to hold out but none to
    train on, fewer than two labels, a new name in `data.labels` for a label that no row has, and data that does not go
    with the parent.
    """
    recipe, data, work = context.recipe, context.recipe.data, context.work
    parent = open_parent(recipe.parent) if recipe.parent is not None else None
    if parent is not None:
        require_alike(parent, recipe)
    pools: list[Pool] = []
    sources = open_sources(data, recipe.carried)
    for number, source in enumerate(sources):
        pools.append(_read(source, data, work / f"pool-{number}.parquet", pools[:number], context))
    where = sources[0].name
    seen = parent.rows() if parent is not None else None
    if seen is not None:
        pools[0].prefer(seen.labelled)
    _require_renamed(data, pools, where)
    labels = _label_order({pool.labels[row] for pool in pools for row in pool.kept.values()})
    if len(labels) < 2:
        raise InputError(f"data.source: {where} has only the label {labels[0]!r}; a classifier needs two")
    if parent is None or seen is None:
        split = split_afresh(pools, data, recipe.seed, where)
    else:
        require_labels(parent, labels)
        split = split_onward(pools[0], seen, data, recipe.seed, where)
    parts = split.parts
    require_training_rows(parts, where)
    for name, part in parts.items():
        _write(part, labels, work / f"{name}.parquet")
    doubtful = find_doubtful(work, labels, recipe, context.report)
    continued: Summary = {}
    if parent is not None:
        _write_held_out(split, recipe, work / HELD_OUT)
        continued = {
            "parent": {"tag": parent.tag, "content": parent.content, **_continued(split, recipe.compare.max_rows)}
        }
    for pool in pools:
        pool.file.unlink()
    write_json(work / "labels.json", labels)
    write_json(work / ROWS, _seen(split))
    summary: Summary = continued | {
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
    return doubtful.without_removed(summary)


def _seen(split: Split) -> SeenRows:
    """The filters of what a model of these parts has seen, the rows that pick its checkpoint included.

    What the parent was trained on is in it even where `data.rows.train` left it out: weights may come from there.
    """
    parts = [*split.parts.values(), split.trained_before]
    trained = {key for part in parts if part is not split.parts["test"] for key in part.row_keys()}
    labelled = {key for part in parts for key in part.labelled_keys()}
    return SeenRows(
        trained=RowFilter.of(sorted(trained)),
        held_out=RowFilter.of(split.parts["test"].row_keys()),
        labelled=RowFilter.of(sorted(labelled)),
    )


def _continued(split: Split, most: int) -> dict[str, int]:
    """How many rows are the parent's and how many are new, and on how many of those held out they are compared."""
    trained = np.concatenate([part.rows for name, part in split.parts.items() if name != "test"])
    again = int(np.isin(trained, split.trained_before.rows).sum())
    reference, relabelled = len(split.reference.rows), len(split.relabelled.rows)
    return {
        "reference": reference,
        "relabelled": relabelled,
        "fresh": len(split.parts["test"].rows) - reference - relabelled,
        "missing": split.missing,
        "trained_gone": split.gone,
        "compared": min(most, len(split.parts["test"].rows)),
        "trained_again": again,
        "trained_new": len(trained) - again,
    }


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
        first = pool.keep(same, row)
        if first != row:
            reason = "duplicate" if pool.labels[first] == label else "same text as another row, other label"
            pool.dropped.setdefault(reason, []).append(raw.origin)
        also = json.dumps({name: _scalar(value) for name, value in raw.also.items()}) if raw.also else None
        yield {"text": text, "text_pair": pair, "origin": raw.origin, "also": also}


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


def _scalar(value: object) -> str | int | float | bool | None:
    """A value to slice by, as JSON has it."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return None if isinstance(value, float) else SURROGATE.sub("\ufffd", str(value)[:MOST_CHARACTERS])


def _write(part: Part, labels: list[str], file: Path) -> None:
    index = {label: number for number, label in enumerate(labels)}
    schema = POOL.append(pa.field("label", pa.int64()))
    with pq.ParquetWriter(file, schema) as writer:
        for table, rows in _texts(part):
            numbers = [index[part.pool.labels[row]] for row in rows]
            writer.write_table(table.append_column("label", pa.array(numbers, pa.int64())))


def _write_held_out(split: Split, recipe: Recipe, file: Path) -> None:
    """At most compare.max_rows of them, drawn with the seed: more than that are no comparison."""
    part, names, most = split.parts["test"], recipe.data.columns, recipe.compare.max_rows
    sets = {int(row): name for name in ("reference", "relabelled") for row in getattr(split, name).rows}
    if most < len(part.rows):
        part = part.take(np.random.default_rng(recipe.seed).choice(len(part.rows), most, replace=False))
    with file.open("w", encoding="utf-8") as lines:
        for table, rows in _texts(part):
            for values, row in zip(table.to_pylist(), rows, strict=True):
                line = json.loads(values["also"] or "{}") | {names.text: values["text"]}
                if names.text_pair is not None:
                    line[names.text_pair] = values["text_pair"]
                line |= {"label": part.pool.labels[row], "set": sets.get(row, "fresh")}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def _texts(part: Part) -> Iterator[tuple[pa.Table, list[int]]]:
    """The part's rows as they are in the pool's file, a chunk at a time, with the number of each."""
    wanted = np.zeros(len(part.pool.keys), dtype=bool)
    wanted[part.rows] = True
    first = 0
    for batch in pq.ParquetFile(part.pool.file).iter_batches(batch_size=CHUNK_ROWS):
        here = wanted[first : first + len(batch)]
        yield pa.Table.from_batches([batch]).filter(pa.array(here)), (np.flatnonzero(here) + first).tolist()
        first += len(batch)
