"""Rows whose label is probably wrong, ranked: a quick classifier that never saw a row says what it would call it."""

import json
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from threadpoolctl import threadpool_limits

from bentune.bundle.files import Frozen
from bentune.bundle.targets.many_labels import THRESHOLD, ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from training.data.judged import Given, read_given, word_pieces
from training.pipeline.stage import Reporter, Summary
from training.recipe.recipe import Recipe
from training.tasks.registry import target_of

DOUBTFUL = "doubtful.jsonl"
SPLITS = ("train", "validation", "test")
FOLDS = 5
MOST_ROWS = 10_000
MOST_SCORES = 250_000
"""Rows x labels: what the classifier costs."""
MOST_FEATURES = 20_000
LEAST_ACCURACY = 0.7
"""A classifier that is right less often says more of itself than of the labels: where it got 43 % right (1,499 reviews
with stars) it doubted half, where it got 97 % right (2,123 news articles) four rows."""
SHOWN = 3
SHOWN_CHARACTERS = 300
REMOVED = "label probably wrong"

Numbers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


class DoubtfulRow(Frozen):
    """A line of doubtful.jsonl: `score` is the probability of the label that the row has, the most doubtful first.

    Where rows have any number of labels, `label` and `suggested` name all of a row's, and `score` is cleanlab's of all.
    """

    split: str
    origin: str
    text: str
    label: str
    suggested: str
    score: float


@dataclass(frozen=True, slots=True)
class Doubtful:
    """What was found: `judged` rows of `rows`, with a classifier that is right on `accuracy` of those it never saw.

    Where rows have any number of labels that is its micro F1. `gone` counts the removed rows by label.
    """

    rows: int
    judged: int
    accuracy: float | None
    found: list[DoubtfulRow]
    removed: list[DoubtfulRow]
    gone: Counter[str]
    reason: str | None

    def without_removed(self, summary: Summary) -> Summary:
        """The data stage's summary, with this and without the rows that were removed from the training rows."""
        doubtful = {
            "rows": self.rows,
            "judged": self.judged,
            "accuracy": self.accuracy,
            "found": dict(Counter(row.split for row in self.found)),
            "removed": len(self.removed),
            "not_judged": self.reason,
            "first": [row.model_dump(exclude={"text"}) for row in self.found[:SHOWN]],
        }
        summary = summary | {"doubtful_labels": doubtful}
        if not self.removed:
            return summary
        left = {label: rows - self.gone[label] for label, rows in summary["rows_by_label"]["train"].items()}
        dropped = {"rows": len(self.removed), "samples": [row.origin for row in self.removed[:SHOWN]]}
        return summary | {
            "rows": summary["rows"] | {"train": summary["rows"]["train"] - len(self.removed)},
            "rows_by_label": summary["rows_by_label"] | {"train": left},
            "dropped": summary["dropped"] | {REMOVED: dropped},
        }


def find_doubtful(work: Path, labels: Sequence[str], recipe: Recipe, report: Reporter) -> Doubtful:
    """Write doubtful.jsonl beside the splits in `work`; with `remove` take the rows out of train.parquet, never others.

    Training rows are judged out of fold, held-out rows by what all training rows say, so that what is removed does not
    depend on what is held out. Which of them are doubtful follows Northcutt et al. 2021, https://arxiv.org/abs/1911.00068
    (cleanlab), of any number of labels Thyagarajan et al. 2022, https://arxiv.org/abs/2211.13895. Bounded: of large
    data so many rows as MOST_ROWS and MOST_SCORES allow are judged, the same in any order of the file.
    """
    files = {name: file for name in SPLITS if (file := work / f"{name}.parquet").is_file()}
    rows = sum(pq.read_metadata(file).num_rows for file in files.values())
    judging = JUDGES.get(target_of(recipe).kind)
    if judging is None:
        return Doubtful(rows, 0, None, [], [], Counter(), f"nothing judges labels of the task {recipe.task}")
    if recipe.data.doubtful_labels == "off":
        return Doubtful(rows, 0, None, [], [], Counter(), "data.doubtful_labels is off")
    pa.default_memory_pool().release_unused()  # what Arrow keeps of the rows before, 120 MB of 650,000 reviews
    most = min(MOST_ROWS, MOST_SCORES // len(labels))
    with report.task("judging labels", None):
        given = {name: read_given(file, most, recipe.seed) for name, file in files.items()}
        judge = judging.of(given["train"], labels)
        if judge is None:
            return Doubtful(rows, 0, None, [], [], Counter(), f"fewer than two labels have {FOLDS} training rows")
        if judge.accuracy < LEAST_ACCURACY:
            reason = f"a quick classifier gets {judge.accuracy:.0%} of the labels right, too few to judge them by"
            return Doubtful(rows, 0, judge.accuracy, [], [], Counter(), reason)
        judged = {name: judge.of_train if name == "train" else judge.judge(given[name]) for name in files}
    found = sorted(
        (row for name, verdicts in judged.items() for row in judging.doubtful(name, verdicts, given[name], labels)),
        key=lambda row: (row.score, row.origin),
    )
    with (work / DOUBTFUL).open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in found)
    removed, gone = [], Counter[str]()
    if recipe.data.doubtful_labels == "remove":
        removed = [row for row in found if row.split == "train"]
        origins = {row.origin for row in removed}
        _remove(origins, files["train"])
        for origin, own in zip(given["train"].origins, given["train"].labels, strict=True):
            if origin in origins:
                gone.update(labels[label] for label in judging.numbers(own))
    total = sum(len(verdicts.rows) for verdicts in judged.values())
    return Doubtful(rows, total, judge.accuracy, found, removed, gone, None)


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """`rows` by their numbers in their split, and the probability of each of `labels` for each, [rows, labels]."""

    rows: Numbers
    labels: Numbers
    probabilities: Scores


@dataclass(frozen=True, slots=True)
class _Judge(ABC):
    """Logistic regression on TF-IDF, fitted on the training rows of labels that have enough of them."""

    labels: Numbers
    features: Callable[[list[str]], Any]
    model: Any
    of_train: _Verdicts
    accuracy: float

    @classmethod
    def of(cls, train: Given, labels: Sequence[str]) -> "Self | None":
        """Fit on the training rows; None where fewer than two labels have enough of them."""
        enough = cls._with_enough(train.labels, len(labels))
        if len(enough) < 2:
            return None
        rows = cls._judged(train.labels, enough)
        texts = [train.texts[row] for row in rows]
        given = cls._of_labels(train.labels[rows], enough)
        vectorizer = TfidfVectorizer(
            sublinear_tf=True, min_df=2, max_features=MOST_FEATURES, dtype=np.float32, **word_pieces(texts)
        )
        try:
            features = vectorizer.fit_transform(texts)
        except ValueError:  # no word is in two texts
            return None
        model, folds = cls._classifier()
        # Threads that wait for each other cost ten times what they gain on rows as sparse as these.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unseen = cross_val_predict(model, features, given, cv=folds, method="predict_proba")
            model.fit(features, given)
        accuracy = cls._accuracy(given, unseen, enough)
        return cls(enough, vectorizer.transform, model, _Verdicts(rows, enough, unseen), accuracy)

    def judge(self, given: Given) -> _Verdicts:
        """Judge rows that were not fitted on."""
        rows = self._judged(given.labels, self.labels)
        if not len(rows):
            return _Verdicts(rows, self.labels, np.zeros((0, len(self.labels))))
        features = self.features([given.texts[row] for row in rows])
        return _Verdicts(rows, self.labels, self.model.predict_proba(features))

    @staticmethod
    @abstractmethod
    def _with_enough(labels: Numbers, count: int) -> Numbers:
        """The labels that have rows enough for every fold."""

    @staticmethod
    @abstractmethod
    def _judged(labels: Numbers, judged: Numbers) -> Numbers:
        """The rows that can be judged by these labels."""

    @staticmethod
    @abstractmethod
    def _of_labels(labels: Numbers, judged: Numbers) -> Numbers:
        """What the classifier is to learn of the rows."""

    @staticmethod
    @abstractmethod
    def _classifier() -> tuple[Any, Any]:
        """The classifier, and the folds that it is judged out of."""

    @staticmethod
    @abstractmethod
    def _accuracy(given: Numbers, unseen: Scores, judged: Numbers) -> float:
        """How often it is right on rows that it never saw."""

    @staticmethod
    @abstractmethod
    def numbers(own: npt.NDArray[Any]) -> list[int]:
        """The labels of one row."""

    @staticmethod
    @abstractmethod
    def doubtful(split: str, verdicts: _Verdicts, given: Given, labels: Sequence[str]) -> list[DoubtfulRow]:
        """The rows whose label is probably wrong."""


class _OneLabelJudge(_Judge):
    @staticmethod
    def _with_enough(labels: Numbers, count: int) -> Numbers:
        return np.flatnonzero(np.bincount(labels, minlength=count) >= FOLDS)

    @staticmethod
    def _judged(labels: Numbers, judged: Numbers) -> Numbers:
        return np.flatnonzero(np.isin(labels, judged))

    @staticmethod
    def _of_labels(labels: Numbers, judged: Numbers) -> Numbers:
        del judged
        return labels

    @staticmethod
    def _classifier() -> tuple[Any, Any]:
        return LogisticRegression(), StratifiedKFold(FOLDS, shuffle=True, random_state=0)

    @staticmethod
    def _accuracy(given: Numbers, unseen: Scores, judged: Numbers) -> float:
        return float((judged[unseen.argmax(-1)] == given).mean())

    @staticmethod
    def numbers(own: npt.NDArray[Any]) -> list[int]:
        return [int(own)]

    @staticmethod
    def doubtful(split: str, verdicts: _Verdicts, given: Given, labels: Sequence[str]) -> list[DoubtfulRow]:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_self_confidence_for_each_label

        number = {label: place for place, label in enumerate(verdicts.labels.tolist())}
        own = np.array([number[label] for label in given.labels[verdicts.rows].tolist()], dtype=np.int64)
        if len(np.unique(own)) < 2:  # cleanlab compares labels
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            issues = find_label_issues(own, verdicts.probabilities, filter_by="prune_by_class", n_jobs=1)
        scores = get_self_confidence_for_each_label(own, verdicts.probabilities)
        return [
            DoubtfulRow(
                split=split,
                origin=given.origins[verdicts.rows[place]],
                text=given.texts[verdicts.rows[place]][:SHOWN_CHARACTERS],
                label=labels[int(verdicts.labels[own[place]])],
                suggested=labels[int(verdicts.labels[verdicts.probabilities[place].argmax()])],
                score=round(float(scores[place]), 4),
            )
            for place in np.flatnonzero(issues)
        ]


class _ManyLabelsJudge(_Judge):
    """A row is doubted for any of its labels, or one that it lacks; labels that nobody judges are left as they are."""

    @staticmethod
    def _with_enough(labels: Numbers, count: int) -> Numbers:
        del count
        counts = labels.sum(axis=0)
        return np.flatnonzero((counts >= FOLDS) & (counts <= len(labels) - FOLDS))

    @staticmethod
    def _judged(labels: Numbers, judged: Numbers) -> Numbers:
        del judged
        return np.arange(len(labels))

    @staticmethod
    def _of_labels(labels: Numbers, judged: Numbers) -> Numbers:
        return labels[:, judged]

    @staticmethod
    def _classifier() -> tuple[Any, Any]:
        # There are few rows of each label, and the shrinking of the default hides them.
        return OneVsRestClassifier(LogisticRegression(C=10)), KFold(FOLDS, shuffle=True, random_state=0)

    @staticmethod
    def _accuracy(given: Numbers, unseen: Scores, judged: Numbers) -> float:
        del judged
        return float(f1_score(given, unseen > THRESHOLD, average="micro", zero_division=0))

    @staticmethod
    def numbers(own: npt.NDArray[Any]) -> list[int]:
        return np.flatnonzero(own).tolist()

    @staticmethod
    def doubtful(split: str, verdicts: _Verdicts, given: Given, labels: Sequence[str]) -> list[DoubtfulRow]:
        from cleanlab.multilabel_classification.filter import find_label_issues
        from cleanlab.multilabel_classification.rank import get_label_quality_scores

        target = ManyLabels(labels=list(labels))
        own = [np.flatnonzero(marks).tolist() for marks in given.labels[:, verdicts.labels]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            issues = find_label_issues(own, verdicts.probabilities, filter_by="prune_by_class", n_jobs=1)
        scores = get_label_quality_scores(own, verdicts.probabilities)
        found = []
        for place in np.flatnonzero(issues).tolist():
            marks, suggested = given.labels[place], given.labels[place].copy()
            suggested[verdicts.labels] = verdicts.probabilities[place] > THRESHOLD
            if (marks == suggested).all():
                continue
            found.append(
                DoubtfulRow(
                    split=split,
                    origin=given.origins[place],
                    text=given.texts[place][:SHOWN_CHARACTERS],
                    label=target.spell(marks),
                    suggested=target.spell(suggested),
                    score=round(float(scores[place]), 4),
                )
            )
        return found


JUDGES: dict[str, type[_Judge]] = {OneLabel.kind: _OneLabelJudge, ManyLabels.kind: _ManyLabelsJudge}
"""The judge of each kind of target; what has none here is not judged."""


def _remove(origins: set[str], file: Path) -> None:
    if not origins:
        return
    beside = file.with_suffix(".kept")
    parquet = pq.ParquetFile(file)
    with pq.ParquetWriter(beside, parquet.schema_arrow) as writer:
        for batch in parquet.iter_batches():
            keep = [origin not in origins for origin in batch["origin"].to_pylist()]
            writer.write_table(pa.Table.from_batches([batch]).filter(pa.array(keep)))
    beside.replace(file)
