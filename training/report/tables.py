"""Rows of the report's tables, where they are more than a list of facts."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from bentune.quality.statistics.bootstrap import Interval
from training.data.report import DataReport, Pair
from training.pipeline.results import DataResult, TrainResult
from training.prove.evaluation import Evaluation
from training.recipe.derived import value_of
from training.recipe.recipe import Recipe
from training.recipe.train import AugmentSettings
from training.report.facts import compared, compressed, spelled
from training.report.plots import Plot, heat_map
from training.search.result import SearchResult

MOST_LABELS = 12
"""Most labels of a confusion matrix with numbers; a larger one, too wide for a phone, is drawn with its worst cells."""
MOST_PAIRS = 10
MOST_TRIALS = 20


class LabelRow(NamedTuple):
    """A label's rows in each part; `share` is its training rows divided by those of the most frequent label."""

    label: str
    counts: list[int]
    share: float


class MetricRows(NamedTuple):
    """Metrics of several models on the same rows: `models` and `larger` are headings, the tuned model's is the last."""

    models: list[str]
    larger: list[str]
    rows: list["MetricRow"]


class MetricRow(NamedTuple):
    """A metric of each model; `percent` is true for a share.

    `changes` are the changes to the tuned model, from the base and from each larger model, formatted with intervals.
    """

    name: str
    percent: bool
    cells: list[Interval]
    changes: list[str]


class SeenRow(NamedTuple):
    """One label: its given training rows, its rows after balance and augmentation, and its weight in the loss."""

    label: str
    given: int
    trained: int
    weight: float | None


class TrialRow(NamedTuple):
    """A trial of a search: its values in the order of the columns, and notes such as "the best"."""

    number: int
    reached: str
    cells: list[str]
    seconds: float
    notes: str
    chosen: bool


class Confusion(NamedTuple):
    """The matrix as cells of count and share of their row, or as a plot; and the most frequent mistakes."""

    rows: list[tuple[str, list[tuple[int, float]]]]
    plot: Plot | None
    pairs: list[tuple[str, str, int]]


class LengthRow(NamedTuple):
    """The lengths of the rows of one part, in words or in characters."""

    part: str
    unit: str
    smallest: int
    median: float
    p95: float
    largest: int


class DuplicateRow(NamedTuple):
    """Duplicates or contradictions of one kind, and one pair of them."""

    what: str
    rows: int
    sample: Pair | None


def label_rows(data: DataResult) -> list[LabelRow]:
    """List a row for each label, in their order."""
    most = max(data.rows_by_label["train"].values(), default=1)
    return [
        LabelRow(
            label,
            [data.rows_by_label[part].get(label, 0) for part in data.rows],
            data.rows_by_label["train"].get(label, 0) / most,
        )
        for label in data.labels
    ]


def metrics_of(tested: Evaluation) -> MetricRows:
    """List every metric that has an interval.

    The columns are the values before, those of the larger models if any, and the values after.
    """
    names = {"teacher": "teacher", "dense": "before pruning"}
    larger = {names.get(name, name): compressed(tested, one) for name, one in tested.compressed.items()}
    columns = [compared(tested), *larger.values()]
    rows, shares = [], type(tested.tuned).shares
    for one in zip(*columns, strict=True):
        percent = one[0].key in shares
        changes = [_change(other.change, percent=percent) if other.change else "" for other in one]
        rows.append(MetricRow(spelled(one[0].key), percent, [*(other.other for other in one), one[0].tuned], changes))
    return MetricRows(["before", *larger, "after"], list(larger), rows)


def _change(change: Interval, *, percent: bool) -> str:
    if percent:
        return f"{100 * change.value:+.1f} points, {100 * change.low:+.1f} to {100 * change.high:+.1f}"
    return f"{change.value:+.3f}, {change.low:+.3f} to {change.high:+.3f}"


def seen_rows(training: TrainResult, augment: AugmentSettings) -> list[SeenRow]:
    """List the effect of balance and augmentation by label; empty without any effect."""
    seen = training.training_rows
    same = seen.by_label["given"] == seen.by_label["trained"] and not seen.perturbed and not augment.changes_images
    if same and seen.weights is None:
        return []
    return [
        SeenRow(label, given, seen.by_label["trained"].get(label, 0), (seen.weights or {}).get(label))
        for label, given in seen.by_label["given"].items()
    ]


def trial_rows(found: SearchResult, recipe: Recipe) -> list[TrialRow]:
    """List at most MOST_TRIALS trials, the best first.

    A trial with the values of the run's `recipe` is `chosen`.
    """
    towards = -1 if found.direction == "maximize" else 1
    order = sorted(
        found.trials, key=lambda one: (one.value is None, 0.0 if one.value is None else towards * one.value, one.number)
    )
    own = _values_of(recipe, list(found.best.values))
    rows = []
    for tried in order[:MOST_TRIALS]:
        chosen = tried.values == own
        notes = {
            "the best": tried.number == found.best.number,
            "the searched recipe's own": tried.number == found.own,
            "this run": chosen,
        }
        said = [note for note, holds in notes.items() if holds]
        said += [f"as trial {tried.repeats + 1}"] if tried.repeats is not None else []
        rows.append(
            TrialRow(
                tried.number + 1,
                tried.state if tried.value is None else f"{tried.value:.4f}",
                [_shown(value) for value in tried.values.values()],
                tried.seconds,
                ", ".join(said),
                chosen,
            )
        )
    return rows


def _values_of(recipe: Recipe, keys: list[str]) -> dict[str, Any]:
    """Return the recipe's values of these keys, without keys that it does not have."""
    found: dict[str, Any] = {}
    for key in keys:
        with contextlib.suppress(KeyError, TypeError):
            found[key] = value_of(recipe, key)
    return found


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def confusion_of(labels: list[str], matrix: list[list[int]]) -> Confusion:
    """Return the tuned model's confusion matrix, or its plot if there are many labels."""
    cells = [
        (label, [(count, count / max(sum(row), 1)) for count in row])
        for label, row in zip(labels, matrix, strict=False)
    ]
    mistakes = [
        (labels[gold], labels[predicted], count)
        for gold, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if count and gold != predicted
    ]
    pairs = sorted(mistakes, key=lambda pair: -pair[2])[:MOST_PAIRS]
    if not matrix or len(labels) <= MOST_LABELS:
        return Confusion(cells, None, pairs)
    return Confusion([], heat_map(matrix, "Given labels by predicted ones, in the order of the labels"), pairs)


def length_rows(report: DataReport) -> list[LengthRow]:
    """List a row for each part and unit."""
    return [
        LengthRow(name, unit, found.smallest, found.median, found.p95, found.largest)
        for name, part in report.parts.items()
        for unit, found in (("words", part.words), ("characters", part.characters))
    ]


def duplicate_rows(report: DataReport) -> list[DuplicateRow]:
    """List the duplicates, then the rows that contradict another row."""
    return [row for row in _duplicates(report) if row.rows]


def _duplicates(report: DataReport) -> Iterator[DuplicateRow]:
    for one in report.duplicates:
        alike = "the same as" if one.kind == "exact" else "nearly the same as"
        place = {"test": "a test row", "train": "a training row", "validation": "a validation row"}
        what = f"{alike} {place.get(one.part or '', 'another row')}"
        yield DuplicateRow(what, one.rows, next(iter(one.samples), None))
    for other in report.contradictions:
        alike = "the same as" if other.kind == "exact" else "nearly the same as"
        yield DuplicateRow(f"{alike} another row, and another label", other.rows, next(iter(other.samples), None))
