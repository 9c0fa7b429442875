"""The report's tables: what stands in each row of those that are more than a list of facts."""

from collections.abc import Iterator
from typing import NamedTuple

from rollout.bootstrap import Interval
from rollout.quality import Classification
from training.data_report import DataReport, Pair
from training.evaluation import Evaluation
from training.report_facts import DataFacts, compared, spelled
from training.report_plots import Plot, heat_map

MOST_LABELS = 12
"""A confusion matrix of more has no room for its numbers on a phone: it is drawn, and its worst cells are listed."""
MOST_PAIRS = 10
SHARES = frozenset({"accuracy", "macro_f1", "micro_f1", "calibration_error"})


class LabelRow(NamedTuple):
    """A label's rows in each part, and how many of its training rows there are to those of the most frequent."""

    label: str
    counts: list[int]
    share: float


class MetricRow(NamedTuple):
    """A metric before and after; `percent` where it is a share, `change` in words with its interval."""

    name: str
    percent: bool
    base: Interval
    tuned: Interval
    change: str


class Confusion(NamedTuple):
    """The matrix as cells of count and share of their row, or as a plot; and the mistakes that are made most often."""

    rows: list[tuple[str, list[tuple[int, float]]]]
    plot: Plot | None
    pairs: list[tuple[str, str, int]]


class LengthRow(NamedTuple):
    """How long the rows of a part are, in words and in characters."""

    part: str
    unit: str
    smallest: int
    median: float
    p95: float
    largest: int


class DuplicateRow(NamedTuple):
    """Rows that are the same as others or nearly, and one pair of them."""

    what: str
    rows: int
    sample: Pair | None


def label_rows(data: DataFacts) -> list[LabelRow]:
    """In the order of the labels."""
    most = max(data.rows_by_label["train"].values(), default=1)
    return [
        LabelRow(
            label,
            [data.rows_by_label[part].get(label, 0) for part in data.rows],
            data.rows_by_label["train"].get(label, 0) / most,
        )
        for label in data.labels
    ]


def metric_rows(tested: Evaluation) -> list[MetricRow]:
    """Every metric of the whole that has an interval."""
    rows = []
    for one in compared(tested):
        percent = one.key in SHARES
        change = _change(one.change, percent=percent) if one.change else ""
        rows.append(MetricRow(spelled(one.key), percent, one.base, one.tuned, change))
    return rows


def _change(change: Interval, *, percent: bool) -> str:
    if percent:
        return f"{100 * change.value:+.1f} points, {100 * change.low:+.1f} to {100 * change.high:+.1f}"
    return f"{change.value:+.3f}, {change.low:+.3f} to {change.high:+.3f}"


def confusion_of(tuned: Classification) -> Confusion:
    """Of the tuned model."""
    labels, matrix = tuned.labels, tuned.confusion
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
    """A row for each part and unit."""
    return [
        LengthRow(name, unit, found.smallest, found.median, found.p95, found.largest)
        for name, part in report.parts.items()
        for unit, found in (("words", part.words), ("characters", part.characters))
    ]


def duplicate_rows(report: DataReport) -> list[DuplicateRow]:
    """What was left out for another row, then what contradicts another row; nothing where there is none."""
    return [row for row in _duplicates(report) if row.rows]


def _duplicates(report: DataReport) -> Iterator[DuplicateRow]:
    for one in report.duplicates:
        alike = "the same text as" if one.kind == "exact" else "nearly the same text as"
        place = {"test": "a held-out row", "train": "a training row", "validation": "a validation row"}
        what = f"{alike} {place.get(one.part or '', 'another row')}"
        yield DuplicateRow(what, one.rows, next(iter(one.samples), None))
    for other in report.contradictions:
        alike = "the same text as" if other.kind == "exact" else "nearly the same text as"
        yield DuplicateRow(f"{alike} another row, and another label", other.rows, next(iter(other.samples), None))
