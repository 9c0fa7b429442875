"""Assignment of rows to train, validation and test; with a previous version its assignment is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from bentune.bundle.arrays import Mask
from bentune.bundle.errors import InputError
from bentune.bundle.seen_rows import SeenRows
from training.data.reading.pool import PoolRows
from training.data.split.hold_out import hold_out, newest, some_groups
from training.recipe.data import DataSettings

FILTERED_AT_ONCE = 50_000
MOST_MISSING = 0.5
MOST_RELABELLED = 0.05
"""Largest share of corrected labels in the previous version's test set: with more, the versions are not comparable."""


@dataclass(frozen=True, slots=True)
class Split:
    """Assignment of rows: `parts` are `train`, `test` and, if requested, `validation`.

    The other fields are empty without a previous version. `reference` are the rows of its test set with the same label
    as before, `relabelled` the rows with another label now. `trained_before` are its training rows, even where
    data.rows.train leaves them out. The data no longer has `missing` rows of its test set and `gone` rows of its
    training set.
    """

    parts: dict[str, PoolRows]
    reference: PoolRows
    relabelled: PoolRows
    trained_before: PoolRows
    missing: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """Rows of the previous version's test set and training set, bool [rows of the pool]; no row is in both sets."""

    held_out: Mask
    trained: Mask

    @classmethod
    def of(cls, everything: PoolRows, seen: SeenRows | None) -> "Known":
        """Search for the kept rows in the previous version's filters."""
        held_out, trained = np.zeros((2, len(everything.pool)), dtype=np.bool_)
        if seen is not None:
            keys = everything.row_keys()
            held_out[everything.rows] = _in(seen.held_out.has, keys)
            trained[everything.rows] = _in(seen.trained_on, keys)
        return cls(held_out, trained & ~held_out)


def split_afresh(everything: PoolRows, left_out: Mask, data: DataSettings, seed: int, where: str) -> Split:
    """Split off the recipe's test set, or take the hub's.

    No part contains rows that are in `left_out`, bool [rows of the pool]. Raises InputError when the split is
    impossible.
    """
    share = data.split.test
    part = everything.take(np.flatnonzero(~left_out[everything.rows]))
    if isinstance(share, str):
        sources = part.pool.sources[part.rows]
        parts = {name: part.take(np.flatnonzero(sources == number)) for number, name in enumerate(("train", "test"))}
    else:
        train, test = hold_out(part, share, data.split, seed, f"{where}, data.split.test")
        parts = {"train": train, "test": test}
    nothing = everything.take(np.array([], dtype=np.int64))
    return Split(_limited(parts, data, seed, where), nothing, nothing, nothing)


def split_onward(
    everything: PoolRows, left_out: Mask, known: Known, seen: SeenRows, data: DataSettings, seed: int, where: str
) -> Split:
    """Keep the previous version's test and training sets, and split the new rows.

    A share of the new rows is split off for the test set. The result depends on the rows, the previous version's
    filters, the share and the seed alone. `data.rows.test` limits the new rows only. No part contains rows that are in
    `left_out`, bool [rows of the pool].

    Raises InputError when the versions could not be compared: more than MOST_MISSING of the previous test set is gone,
    or more than MOST_RELABELLED of it has another label now.
    """
    held_out, trained = known.held_out[everything.rows], known.trained[everything.rows]
    out = left_out[everything.rows]
    fresh = ~held_out & ~trained & ~out
    missing = max(0, seen.held_out.rows - int(held_out.sum()))
    if missing > MOST_MISSING * seen.held_out.rows:
        raise InputError(
            f"data.source: of {seen.held_out.rows} rows in the parent's test set, {missing} are no longer in {where}, "
            "so the versions could not be compared: add the rows that the parent was made of, or start over "
            "with `bentune run`"
        )
    as_it_was = held_out & _in(seen.labelled.has, everything.labelled_keys())
    relabelled = held_out & ~as_it_was
    changed, kept = int(relabelled.sum()), int(held_out.sum())
    if changed > MOST_RELABELLED * kept:
        raise InputError(
            f"data.source: of {kept} rows in the parent's test set, {changed} have another label in {where} than "
            f"before, and at most {MOST_RELABELLED:.0%} may, so the versions could not be compared: fix the labels, or "
            "start over with `bentune run`"
        )
    share = data.split.test
    if isinstance(share, str):
        raise InputError(
            f"data.split.test: {share!r} names a split of a hub data set, but a parent's test set is kept: put the "
            "rows of all splits into one source, and give the share of new rows for the test set, for example 0.2"
        )
    chosen = _fresh_held_out(everything, held_out, trained, fresh, data, share, seed)
    tested = chosen if data.rows.test is None else _some(chosen, data.rows.test, seed)
    parts = {
        "train": everything.take(np.flatnonzero((trained & ~out) | (fresh & ~chosen))),
        "test": everything.take(np.flatnonzero(held_out | tested)),
    }
    unbounded = data.model_copy(update={"rows": data.rows.model_copy(update={"test": None})})
    return Split(
        _limited(parts, unbounded, seed, where),
        reference=everything.take(np.flatnonzero(as_it_was)),
        relabelled=everything.take(np.flatnonzero(relabelled)),
        trained_before=everything.take(np.flatnonzero(trained)),
        missing=missing,
        gone=max(0, seen.trained.rows - int(_in(seen.trained.has, everything.row_keys()).sum())),
    )


def _fresh_held_out(
    everything: PoolRows, held_out: Mask, trained: Mask, fresh: Mask, data: DataSettings, share: float, seed: int
) -> Mask:
    """Draw the new rows for the test set, bool [rows].

    New rows of a known group go to the part of their group.
    """
    if data.split.kind == "label":
        return everything.pool.target.draw_among(everything, fresh, share, seed)
    chosen = np.zeros(len(everything), dtype=np.bool_)
    if data.split.kind == "time":
        places = np.flatnonzero(fresh)
        chosen[places] = newest(everything.take(places), share)
        return chosen
    groups = everything.groups
    on_test, on_train = np.unique(groups[held_out]), np.unique(groups[trained])
    if both := len(np.intersect1d(on_test, on_train)):
        raise InputError(
            f"data.split.group: {data.split.group!r}: {both} of its values have rows in both the parent's test set and "
            "its training set, and no row may move: continue a parent that was split by this column, or "
            "start over with `bentune run`"
        )
    chosen |= fresh & np.isin(groups, on_test)
    places = np.flatnonzero(fresh & ~chosen & ~np.isin(groups, on_train))
    if len(places):
        chosen[places] = some_groups(everything.take(places), share, seed)
    return chosen


def require_training_rows(parts: Mapping[str, PoolRows], where: str) -> None:
    """Raise InputError for a label without training rows or a part without a row."""
    trained = parts["train"].label_counts
    for name, part in parts.items():
        missing = {label: rows for label, rows in part.label_counts.items() if label not in trained}
        if missing:
            label, rows = max(missing.items(), key=itemgetter(1))
            raise InputError(
                f"{where}: label {label!r} has {rows} {name} rows and none to train on: add rows, raise "
                "data.rows.train, or merge it into another label with data.labels"
            )
        if not len(part):
            raise InputError(f"{where}: no {name} row is left: look for left-out rows with data.near_duplicates: off")


def _in(has: Callable[[Sequence[bytes]], Mask], keys: Sequence[bytes]) -> Mask:
    pieces = [has(keys[start : start + FILTERED_AT_ONCE]) for start in range(0, len(keys), FILTERED_AT_ONCE)]
    return np.concatenate([np.zeros(0, dtype=np.bool_), *pieces])


def _some(mask: Mask, most: int, seed: int) -> Mask:
    chosen = np.zeros(len(mask), dtype=np.bool_)
    chosen[np.random.default_rng(seed).permutation(np.flatnonzero(mask))[:most]] = True
    return chosen


def _limited(parts: dict[str, PoolRows], data: DataSettings, seed: int, where: str) -> dict[str, PoolRows]:
    generator = np.random.default_rng(seed)
    for name, limit in data.rows.model_dump().items():
        part = parts[name]
        if limit is not None and limit < len(part.rows):
            parts[name] = part.take(generator.choice(len(part.rows), limit, replace=False))
    if data.split.validation:
        where_validation = f"{where}, data.split.validation"
        train, validation = hold_out(parts["train"], data.split.validation, data.split, seed, where_validation)
        parts |= {"train": train, "validation": validation}
    return parts
