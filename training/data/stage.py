"""Stage `data`: reads and cleans labelled rows, removes duplicates, splits the kept rows, and reports on all rows."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.markup import escape

from bentune.bundle.arrays import Ints, Mask
from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.files import write_json
from bentune.bundle.manifest import Bundle
from bentune.bundle.seen_rows import RowFilter, SeenRows
from training.data.duplicates.exact import same_texts
from training.data.duplicates.near import NO_ROW, Near, find_near, sketch
from training.data.label_errors import find_label_errors
from training.data.reading.merge import joined_labels
from training.data.reading.pool import POOL, PoolRows
from training.data.reading.reading import Reading, read_sources
from training.data.split.split import Known, Split, require_training_rows, split_afresh, split_onward
from training.data.summary import SAME_AS_TRAINING, RowReport
from training.pipeline.layout import DataFiles
from training.pipeline.previous_version import open_parent, require_alike, require_labels
from training.pipeline.results import DataResult, LabelsPerRow, ParentRows, TokenCoverage
from training.pipeline.stage import Context, Reporter
from training.recipe.data import DataSettings
from training.recipe.recipe import Recipe
from training.tasks.registry import task_of
from training.tasks.rows import labels_in, open_rows
from training.tasks.targets.label_order import label_order

POOL_FILE = "pool.parquet"
SHOWN_LABELS = 20


def run(context: Context) -> DataResult:
    """Write each part as PART.parquet.

    Parts are train, test and, if requested, validation. The stage also writes labels.json, rows.json, report.json and
    doubtful.jsonl. With a parent it writes held_out.jsonl: the rows of test.parquet for `bentune compare`, with the
    columns that the recipe slices by and a column `set`. `set` is `reference` for rows of the parent's test set,
    `relabelled` where such a row has another label now, else `fresh`.

    Raises InputError for invalid rows, a label with a single row, a label with test rows but no training rows, fewer
    than two labels, a new name in `data.labels` for a label that no row has, and data that does not fit the parent.
    """
    task = task_of(context.recipe)
    recipe = task.as_read(context.recipe)
    data, work, target = recipe.data, context.work, task.target(recipe.data)
    files = DataFiles(work)
    parent = open_parent(recipe.parent) if recipe.parent is not None else None
    if parent is not None:
        require_alike(parent, recipe)
    sources = task.sources(data, recipe.carried)
    where = sources[0].name
    joined = joined_labels(sources, data, target, parent.manifest.labels if parent is not None else ())
    data = data.model_copy(update={"labels": data.labels | joined})
    target = task.target(data)
    seen = parent.rows() if parent is not None else None
    reading = read_sources(sources, data, task, work / POOL_FILE, context.report)
    pool = reading.pool
    kept_for = same_texts(pool, seen.labelled if seen is not None else None)
    _require_usable(reading, kept_for, [source.name for source in sources])
    order = pool.order()
    everything = PoolRows(pool, order[kept_for[order] == order])
    _require_renamed(data, reading, where)
    labels = target.order(everything.label_counts, where)
    known = Known.of(everything, seen)
    near = _near(everything, known, data, context.report)
    left_out = near.kept != NO_ROW if data.near_duplicates.action == "remove" else np.zeros(len(pool), dtype=np.bool_)
    if parent is None or seen is None:
        split = split_afresh(everything, left_out, data, recipe.seed, where)
    else:
        require_labels(parent, labels)
        split = split_onward(everything, left_out, known, seen, data, recipe.seed, where)
    parts = split.parts
    require_training_rows(parts, where)
    for name, part in parts.items():
        _write(part, labels, files.part(name))
    doubtful = find_label_errors(work, labels, recipe, context.report)
    if parent is not None:
        _write_held_out(split, recipe, files.held_out)
    gold = {name: labels_in(files.part(name)) for name in parts}
    labels_a_row = {
        name: LabelsPerRow.model_validate(found)
        for name, own in gold.items()
        if (found := target.labels_a_row(own)) is not None
    }
    write_json(files.target, target.target(labels, gold["train"]).wire())
    rows_print = fingerprint(key for part in parts.values() for key in part.whole_keys())
    told = RowReport(reading, kept_for, near, split, recipe)
    report = told.report(rows_print, labels, [source.name for source in sources])
    write_json(files.report, report)
    write_json(files.labels, labels)
    write_json(files.seen, _seen(split, near.kept, left_out))
    pool.file.unlink()
    result = DataResult(
        source=[source.name for source in sources],
        fingerprint=rows_print,
        labels=labels,
        rows={name: len(part) for name, part in parts.items()},
        rows_by_label={name: part.label_counts for name, part in parts.items()},
        labels_a_row=labels_a_row or None,
        dropped=told.dropped(),
        cleaned=told.cleaned(),
        read=report.rows_read,
        split=report.split,
        doubtful_labels=doubtful.counts(),
    )
    if parent is not None:
        result = result.model_copy(update={"parent": _continued(parent, split, recipe.compare.max_rows)})
    result = doubtful.without_removed(result)
    return result.model_copy(update={"tokens": _tokens(files, context)} | ({"joined": joined} if joined else {}))


def _tokens(files: DataFiles, context: Context) -> TokenCoverage | None:
    """Count unknown tokens and truncated rows; None for images, and where the tokenizer cannot be read."""
    recipe, task = context.recipe, task_of(context.recipe)
    try:
        with context.report.task("reading tokens", None):
            return task.coverage(open_rows(files.train), task.processor(recipe), recipe.max_tokens, recipe.seed)
    except BentuneError as error:
        # The rows may be looked at without the model; `train` refuses what it cannot read.
        context.report.say(escape(f"tokens are not counted: {error}"))
        return None


def fingerprint(keys: Iterable[bytes]) -> str:
    """Hash the sorted keys of the rows by sha256, so that their order does not matter."""
    return hashlib.sha256(b"".join(sorted(keys))).hexdigest()


def _near(everything: PoolRows, known: Known, data: DataSettings, report: Reporter) -> Near:
    """Find near duplicates among the rows without exact duplicates.

    The order of precedence is: the parent's test set, its training set, the hub's test split, and, for a split by time,
    the oldest rows. So no test row is near a training row of the same label, in any version.
    """
    pool, settings, rows = everything.pool, data.near_duplicates, everything.rows
    if settings.action == "off":
        return Near.none(pool)
    tiers = np.select([known.held_out[rows], known.trained[rows]], [0, 1], 2)
    times = () if pool.times is None else (everything.times,)
    # Stable: ties stay in the order of the keys.
    order = np.lexsort((*times, -pool.sources[rows], tiers))
    with report.task("looking for near duplicates", len(rows)) as advance:
        sketches = sketch(pool, rows[order], settings.threshold, advance)
    return find_near(pool, sketches, settings.threshold, known.held_out)


def _seen(split: Split, kept: Ints, left_out: Mask) -> SeenRows:
    """Build the filters of the rows that a model of these parts has seen.

    Validation rows count as training rows. The parent's training rows are included even where `data.rows.train` leaves
    them out, because a warm start uses the parent's weights. Near duplicates of training rows are included, because
    they must not count as new rows later.
    """
    parts = [*split.parts.values(), split.trained_before]
    pool = split.trained_before.pool
    trained_rows = np.zeros(len(pool), dtype=np.bool_)
    for part in parts:
        if part is not split.parts["test"]:
            trained_rows[part.rows] = True
    trained_rows[left_out] |= trained_rows[kept[left_out]]
    trained = PoolRows(pool, np.flatnonzero(trained_rows)).row_keys()
    labelled = {key for part in parts for key in part.labelled_keys()}
    return SeenRows(
        trained=RowFilter.of(sorted(trained)),
        held_out=RowFilter.of(split.parts["test"].row_keys()),
        labelled=RowFilter.of(sorted(labelled)),
    )


def _continued(parent: Bundle, split: Split, most: int) -> ParentRows:
    """Count the parent's rows and the new ones, and the test rows to compare."""
    trained = np.concatenate([part.rows for name, part in split.parts.items() if name != "test"])
    again = int(np.isin(trained, split.trained_before.rows).sum())
    reference, relabelled = len(split.reference), len(split.relabelled)
    return ParentRows(
        tag=parent.tag,
        content=parent.content,
        reference=reference,
        relabelled=relabelled,
        fresh=len(split.parts["test"]) - reference - relabelled,
        missing=split.missing,
        trained_gone=split.gone,
        compared=min(most, len(split.parts["test"])),
        trained_again=again,
        trained_new=len(trained) - again,
    )


def _require_usable(reading: Reading, kept_for: Ints, names: list[str]) -> None:
    """Raise InputError for a source without a kept row."""
    pool = reading.pool
    kept = kept_for == np.arange(len(pool))
    for number, name in enumerate(names):
        if (kept & (pool.sources == number)).any():
            continue
        reasons = {rule.rule: rule.rows for rule in reading.tallies[number].report() if rule.effect == "left out"}
        if copies := int((pool.sources == number).sum()):
            reasons[SAME_AS_TRAINING] = copies
        dropped = ", ".join(f"{rows} {reason}" for reason, rows in reasons.items())
        raise InputError(f"data.source: {name} has no usable row ({dropped or 'it is empty'})")


def _require_renamed(data: DataSettings, reading: Reading, where: str) -> None:
    if unused := sorted(data.labels.keys() - reading.given_labels):
        known = label_order(reading.given_labels)
        shown = ", ".join(map(repr, known[:SHOWN_LABELS])) + (", ..." if len(known) > SHOWN_LABELS else "")
        raise InputError(f"data.labels: no row of {where} has the label {unused[0]!r}; its labels are {shown}")


def _write(part: PoolRows, labels: list[str], file: Path) -> None:
    """Write the texts of a part, and the target's column `label`."""
    pool, target = part.pool, part.pool.target
    with pq.ParquetWriter(file, POOL.append(pa.field("label", target.column_type(labels)))) as writer:
        for table, rows in pool.tables(part.rows):
            given = [pool.labels[label] for label in pool.label_ids[rows]]
            writer.write_table(table.append_column("label", target.column(given, labels)))


def _write_held_out(split: Split, recipe: Recipe, file: Path) -> None:
    """Write at most compare.max_rows of the test rows, drawn with the seed."""
    part, names, most = split.parts["test"], recipe.data.columns, recipe.compare.max_rows
    pool = part.pool
    sets = {int(row): name for name in ("reference", "relabelled") for row in getattr(split, name).rows}
    if most < len(part):
        part = part.take(np.random.default_rng(recipe.seed).choice(len(part), most, replace=False))
    with file.open("w", encoding="utf-8") as lines:
        for table, rows in pool.tables(part.rows):
            for values, row in zip(table.to_pylist(), rows.tolist(), strict=True):
                line = json.loads(values["also"] or "{}") | {names.text: values["text"]}
                if names.text_pair is not None:
                    line[names.text_pair] = values["text_pair"]
                label = pool.target.written(pool.labels[pool.label_ids[row]])
                line |= {"label": label, "set": sets.get(row, "fresh")}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
