"""Holds rows out: by label and the recipe's share, or on from what the parent held out and was trained on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from service.errors import InputError
from service.row_filter import SeenRows
from training.data_settings import DataSettings
from training.pool import Part, Pool

FILTERED_AT_ONCE = 500_000
MOST_MISSING = 0.5
MOST_RELABELLED = 0.05
"""More than a few labels that people mended are other questions, and an answer to those says nothing of the old."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """`parts` are `train`, `test` and, if asked for, `validation`; the rest is empty without a parent.

    `reference` are the rows of `test` that the parent held out, with the labels that they had; `relabelled` those that
    have another now. `trained_before` are those that it was trained on, left out by data.rows.train or not. `missing`
    counts what the parent held out and the data no longer has, `gone` the same of what it was trained on.
    """

    parts: dict[str, Part]
    reference: Part
    relabelled: Part
    trained_before: Part
    missing: int = 0
    gone: int = 0


def split_afresh(pools: Sequence[Pool], data: DataSettings, seed: int, where: str) -> Split:
    """Hold out the recipe's share of each label, or the hub's split. Raises InputError when that cannot be done."""
    pool, test_share = pools[0], data.split.test
    if isinstance(test_share, str):
        parts = {"train": Part(pool, pool.rows()), "test": Part(pools[1], pools[1].rows())}
    else:
        train, test = _stratified(Part(pool, pool.rows()), test_share, seed, f"{where}, data.split.test")
        parts = {"train": train, "test": test}
    nothing = Part(pool, np.array([], dtype=np.int64))
    return Split(_limited(parts, data, seed, where), nothing, nothing, nothing)


def split_onward(pool: Pool, seen: SeenRows, data: DataSettings, seed: int, where: str) -> Split:
    """What the parent held out stays held out, what it was trained on is trained on; of the rest a share is held out.

    Nothing but the rows, the parent's filters, the share and the seed decides. `data.rows.test` bounds the fresh rows
    only. Raises InputError when most of what the parent held out is gone, or more than a few rows of it have another
    label than they had: then the versions would not be asked the same.
    """
    everything = Part(pool, pool.rows())
    keys = everything.row_keys()
    held_out = _in(seen.held_out.has, keys)
    trained = _in(seen.trained_on, keys) & ~held_out
    fresh = ~held_out & ~trained
    missing = max(0, seen.held_out.rows - int(held_out.sum()))
    if missing > MOST_MISSING * seen.held_out.rows:
        raise InputError(
            f"data.source: of {seen.held_out.rows} rows that the parent held out, {missing} are not in {where} any "
            "more, so the versions could not be compared: add the rows that the parent was made of, or start over "
            "with `bentune run`"
        )
    as_it_was = held_out & _in(seen.labelled.has, everything.labelled_keys())
    relabelled = held_out & ~as_it_was
    changed, kept = int(relabelled.sum()), int(held_out.sum())
    if changed > MOST_RELABELLED * kept:
        raise InputError(
            f"data.source: of {kept} rows that the parent held out, {changed} have another label in {where} than they "
            f"had then, and {MOST_RELABELLED:.0%} may: the versions would not be asked the same; mend the labels, or "
            "start over with `bentune run`"
        )
    share = data.split.test
    if isinstance(share, str):
        raise InputError(
            f"data.split.test: {share!r} names a split of a hub data set, but with a parent its rows decide: put the "
            "rows of all splits into one source, and give the share of the new ones to hold out, for example 0.2"
        )
    chosen = _shared(everything, fresh, share, seed)
    tested = chosen if data.rows.test is None else _some(chosen, data.rows.test, seed)
    parts = {
        "train": everything.take(np.flatnonzero(trained | (fresh & ~chosen))),
        "test": everything.take(np.flatnonzero(held_out | tested)),
    }
    unbounded = data.model_copy(update={"rows": data.rows.model_copy(update={"test": None})})
    return Split(
        _limited(parts, unbounded, seed, where),
        reference=everything.take(np.flatnonzero(as_it_was)),
        relabelled=everything.take(np.flatnonzero(relabelled)),
        trained_before=everything.take(np.flatnonzero(trained)),
        missing=missing,
        gone=max(0, seen.trained.rows - int(_in(seen.trained.has, keys).sum())),
    )


def require_training_rows(parts: Mapping[str, Part], where: str) -> None:
    """Raise InputError for a label that is held out and never trained on."""
    trained = set(parts["train"].labels)
    for name, part in parts.items():
        missing = Counter(label for label in part.labels if label not in trained)
        if missing:
            label, rows = missing.most_common(1)[0]
            raise InputError(
                f"{where}: label {label!r} has {rows} {name} rows and none to train on: add rows, raise "
                "data.rows.train, or merge it into another label with data.labels"
            )


def _in(has: Callable[[Sequence[bytes]], Mask], keys: Sequence[bytes]) -> Mask:
    pieces = [has(keys[start : start + FILTERED_AT_ONCE]) for start in range(0, len(keys), FILTERED_AT_ONCE)]
    return np.concatenate([np.zeros(0, dtype=np.bool_), *pieces])


def _shared(part: Part, among: Mask, share: float, seed: int) -> Mask:
    """`share` of each label's rows `among` those of the part: as many as fit, for some labels have a row or two."""
    labels = np.array(part.labels)
    places = {str(label): np.flatnonzero(among & (labels == label)) for label in np.unique(labels)}
    exact = {label: len(rows) * share for label, rows in places.items()}
    counts = {label: int(rows) for label, rows in exact.items()}
    # What rounding left goes to the labels that lost most by it.
    left = round(int(among.sum()) * share) - sum(counts.values())
    for label in sorted(exact, key=lambda label: (counts[label] - exact[label], label))[: max(0, left)]:
        counts[label] += 1
    chosen = np.zeros(len(labels), dtype=np.bool_)
    generator = np.random.default_rng(seed)
    for label, rows in places.items():
        chosen[generator.permutation(rows)[: counts[label]]] = True
    return chosen


def _some(mask: Mask, most: int, seed: int) -> Mask:
    chosen = np.zeros(len(mask), dtype=np.bool_)
    chosen[np.random.default_rng(seed).permutation(np.flatnonzero(mask))[:most]] = True
    return chosen


def _limited(parts: dict[str, Part], data: DataSettings, seed: int, where: str) -> dict[str, Part]:
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
