"""Summary of the data stage: counts for the evidence, and samples for data/report.json."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Ints
from training.data import report as data_report
from training.data.duplicates.near import NO_ROW, Near
from training.data.reading.pool import Pool
from training.data.reading.reading import Reading, time_text
from training.data.report import (
    SAMPLES,
    Contradictions,
    DataReport,
    Duplicates,
    Lengths,
    Pair,
    RowExcerpt,
    SourceRows,
    shown,
)
from training.data.split.split import Split
from training.pipeline.results import Cleaned, Dropped, SplitReport
from training.recipe.recipe import Recipe

NAMED = 3
BINS = 30
WIDEST = 99.0
"""Percentile of the lengths where the last bin begins, so that one huge row does not widen all bins."""
SAME_AS_TRAINING = "same text as a row of the training split"
PART_ROWS = {"train": "training row", "test": "test row", "validation": "validation row", None: "row that is not used"}


@dataclass(frozen=True, slots=True)
class Group:
    """Rows left out for the same reason: `rows` of the pool, and for each the row that is kept in its place."""

    kind: str
    reason: str
    part: str | None
    rows: Ints
    kept: Ints


class RowReport:
    """Report on each row. `kept_for` is the row that is kept for each row's text, int64 [rows of the pool]."""

    def __init__(self, reading: Reading, kept_for: Ints, near: Near, split: Split, recipe: Recipe) -> None:
        self.reading, self.kept_for, self.near, self.split, self.recipe = reading, kept_for, near, split, recipe
        self.pool: Pool = reading.pool
        self.names: list[str | None] = [*split.parts, None]
        self.sides = np.full(len(self.pool), len(self.names) - 1, dtype=np.int8)
        for number, part in enumerate(split.parts.values()):
            self.sides[part.rows] = number
        self.groups = [group for group in (*self._exact(), *self._near()) if len(group.rows)]
        contradicted = np.flatnonzero(near.contradicts != NO_ROW)
        self.contradicted = Group("near", "", None, contradicted, near.contradicts[contradicted])
        shown_rows = [np.concatenate([group.rows[:SAMPLES], group.kept[:SAMPLES]]) for group in self._all()]
        self.texts = self.pool.look_up(np.unique(np.concatenate(shown_rows)).astype(np.int64))

    def dropped(self) -> dict[str, Dropped]:
        """Count the left-out rows by reason, and name the first ones."""
        found: dict[str, Dropped] = {}
        counted = [
            (rule.rule, rule.rows, [sample.origin for sample in rule.samples])
            for tally in self.reading.tallies
            for rule in tally.report()
            if rule.effect == "left out"
        ]
        if self.recipe.data.near_duplicates.action != "remove":
            groups = [group for group in self.groups if group.kind != "near"]
        else:
            groups = self.groups
        counted += [
            (group.reason, len(group.rows), [self.texts[row]["origin"] for row in group.rows[:NAMED]])
            for group in groups
        ]
        for reason, rows, origins in counted:
            before = found.get(reason, Dropped(rows=0, samples=[]))
            found[reason] = Dropped(rows=before.rows + rows, samples=[*before.samples, *origins][:NAMED])
        return found

    def cleaned(self) -> dict[str, Cleaned]:
        """Count the rows that each cleaning rule matched, with effect and samples."""
        found: dict[str, Cleaned] = {}
        for rule in (rule for tally in self.reading.tallies for rule in tally.report() if rule.effect != "left out"):
            effect = cast('Literal["fixed", "found"]', rule.effect)
            before = found.get(rule.rule, Cleaned(rows=0, effect=effect, samples=[]))
            samples = [*before.samples, *(sample.origin for sample in rule.samples)][:NAMED]
            found[rule.rule] = Cleaned(rows=before.rows + rule.rows, effect=before.effect, samples=samples)
        return found

    def report(self, fingerprint: str, labels: list[str], sources: list[str]) -> DataReport:
        """Build the content of data/report.json."""
        rows = np.concatenate([part.rows for part in self.split.parts.values()])
        edges = {name: _edges(getattr(self.pool, name)[rows]) for name in ("characters", "words")}
        parts = {
            name: data_report.SplitPart(
                rows=len(part),
                labels=part.label_counts,
                characters=_lengths(self.pool.characters[part.rows], edges["characters"]),
                words=_lengths(self.pool.words[part.rows], edges["words"]),
            )
            for name, part in self.split.parts.items()
        }
        read = self.reading.rows_read
        return DataReport(
            fingerprint=fingerprint,
            sources=[SourceRows(name=name, rows=rows) for name, rows in zip(sources, read, strict=True)],
            rows_read=sum(read),
            rows_kept=len(rows),
            labels=labels,
            split=self._split(),
            parts=parts,
            character_edges=edges["characters"],
            word_edges=edges["words"],
            cleaning=[rule for tally in self.reading.tallies for rule in tally.report()],
            duplicates=list(self._duplicates()),
            contradictions=list(self._contradictions()),
        )

    def _all(self) -> list[Group]:
        return [*self.groups, self.contradicted]

    def _exact(self) -> Iterator[Group]:
        pool, copies = self.pool, np.flatnonzero(self.kept_for != np.arange(len(self.pool)))
        kept = self.kept_for[copies]
        other_source = pool.sources[copies] != pool.sources[kept]
        same_label = pool.label_ids[copies] == pool.label_ids[kept]
        # Where the kept row is itself a near duplicate, the part of the row kept for it counts.
        near = self.near.kept[kept]
        parts = self.sides[np.where(near == NO_ROW, kept, near)]
        for mask, kind, reason in (
            (~other_source & same_label, "exact", "duplicate"),
            (~other_source & ~same_label, "contradicting", "same text as another row, other label"),
            (other_source, "exact", SAME_AS_TRAINING),
        ):
            for number, name in enumerate(self.names):
                chosen = mask & (parts == number)
                yield Group(kind, reason, name, copies[chosen], kept[chosen])

    def _near(self) -> Iterator[Group]:
        rows = np.flatnonzero(self.near.kept != NO_ROW)
        kept = self.near.kept[rows]
        for number, name in enumerate(self.names):
            chosen = self.sides[kept] == number
            yield Group("near", f"nearly the same as a {PART_ROWS[name]}", name, rows[chosen], kept[chosen])

    def _duplicates(self) -> Iterator[Duplicates]:
        removed = self.recipe.data.near_duplicates.action == "remove"
        for group in self.groups:
            if group.kind == "contradicting":
                continue
            near = group.kind == "near"
            similarity = self.near.similarity[group.rows] if near else np.ones(len(group.rows), dtype=np.float32)
            yield Duplicates(
                kind="near" if near else "exact",
                part=group.part,
                removed=removed or not near,
                rows=len(group.rows),
                samples=self._pairs(group, similarity),
            )

    def _contradictions(self) -> Iterator[Contradictions]:
        exact = [group for group in self.groups if group.kind == "contradicting"]
        if exact:
            pairs = [pair for group in exact for pair in self._pairs(group, np.ones(SAMPLES, dtype=np.float32))]
            yield Contradictions(kind="exact", rows=sum(len(group.rows) for group in exact), samples=pairs[:SAMPLES])
        if rows := len(self.contradicted.rows):
            similarity = self.near.contradicts_similarity[self.contradicted.rows]
            yield Contradictions(kind="near", rows=rows, samples=self._pairs(self.contradicted, similarity))

    def _pairs(self, group: Group, similarity: npt.NDArray[np.float32]) -> list[Pair]:
        return [
            Pair(kept=self._side(int(kept)), other=self._side(int(row)), similarity=round(float(alike), 3))
            for row, kept, alike in zip(group.rows[:SAMPLES], group.kept, similarity, strict=False)
        ]

    def _side(self, row: int) -> RowExcerpt:
        values = self.texts[row]
        text = values["text"] if values["text_pair"] is None else f"{values['text']} | {values['text_pair']}"
        label = self.pool.labels[self.pool.label_ids[row]]
        return RowExcerpt(origin=values["origin"], label=label, text=shown(text))

    def _split(self) -> SplitReport:
        settings, pool = self.recipe.data.split, self.pool
        test = self.split.parts["test"]
        fresh = test.rows[~np.isin(test.rows, np.concatenate([self.split.reference.rows, self.split.relabelled.rows]))]
        first = float(pool.times[fresh].min()) if pool.times is not None and len(fresh) else None
        return SplitReport(
            kind="hub" if isinstance(settings.test, str) else settings.kind,
            seed=self.recipe.seed,
            test=settings.test,
            validation=settings.validation,
            column=settings.group or settings.time,
            groups=None if pool.groups is None else len(np.unique(pool.groups)),
            held_out_from=None if first is None else time_text(self.reading.time_kind, first),
            continued=self.recipe.parent is not None,
        )


def _edges(lengths: npt.NDArray[np.uint32]) -> list[int]:
    """Choose the lower bounds of at most BINS equal bins; the last is open above."""
    step = max(1, int(np.ceil(np.percentile(lengths, WIDEST) / (BINS - 1))))
    return list(range(0, min(int(lengths.max()), step * (BINS - 1)) + 1, step))


def _lengths(lengths: npt.NDArray[np.uint32], edges: list[int]) -> Lengths:
    bins = np.searchsorted(edges, lengths, side="right") - 1
    return Lengths(
        counts=np.bincount(bins, minlength=len(edges)).tolist(),
        smallest=int(lengths.min()),
        median=float(np.median(lengths)),
        p95=float(np.percentile(lengths, 95)),
        largest=int(lengths.max()),
    )
