"""Label errors: rows whose label is probably wrong, ranked by the out-of-fold predictions of a quick classifier."""

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

from bentune.bundle.arrays import Floats, Ints
from bentune.bundle.files import atomic_write
from bentune.bundle.targets.many_labels import THRESHOLD, ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from training.data.judged import SampledRows, read_sample, word_pieces
from training.data.report import DoubtfulRow
from training.pipeline.layout import DataFiles
from training.pipeline.results import DataResult, DoubtfulLabel, DoubtfulLabels, Dropped
from training.pipeline.stage import Reporter
from training.recipe.recipe import Recipe
from training.tasks.registry import target_of

SPLITS = ("train", "validation", "test")
FOLDS = 5
MOST_ROWS = 10_000
MOST_SCORES = 250_000
"""Largest product of rows and labels, the cost of the classifier."""
MOST_FEATURES = 20_000
LEAST_ACCURACY = 0.7
"""Least accuracy of the classifier: below it, most of the doubtful rows are its own mistakes. At an accuracy of 43 %
(1,499 reviews with stars) half of the rows were doubtful, at 97 % (2,123 news articles) four rows."""
SHOWN = 3
SHOWN_CHARACTERS = 300
REMOVED = "label probably wrong"


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """Result of the search: `judged` of `rows` rows, by a classifier whose out-of-fold accuracy is `accuracy`.

    For multi-label rows the accuracy is micro F1. `gone` counts the removed rows by label.
    """

    rows: int
    judged: int
    accuracy: float | None
    found: list[DoubtfulRow]
    removed: list[DoubtfulRow]
    gone: Counter[str]
    reason: str | None

    def counts(self) -> DoubtfulLabels:
        """Count the doubtful rows by part, with the first ones."""
        return DoubtfulLabels(
            rows=self.rows,
            judged=self.judged,
            accuracy=self.accuracy,
            found=dict(Counter(row.split for row in self.found)),
            removed=len(self.removed),
            not_judged=self.reason,
            first=[DoubtfulLabel(**row.model_dump(exclude={"text"})) for row in self.found[:SHOWN]],
        )

    def without_removed(self, result: DataResult) -> DataResult:
        """Return the data stage's result without the removed training rows."""
        if not self.removed:
            return result
        left = {label: rows - self.gone[label] for label, rows in result.rows_by_label["train"].items()}
        dropped = Dropped(rows=len(self.removed), samples=[row.origin for row in self.removed[:SHOWN]])
        return result.model_copy(
            update={
                "rows": result.rows | {"train": result.rows["train"] - len(self.removed)},
                "rows_by_label": result.rows_by_label | {"train": left},
                "dropped": result.dropped | {REMOVED: dropped},
            }
        )


def find_label_errors(work: Path, labels: Sequence[str], recipe: Recipe, report: Reporter) -> LabelErrors:
    """Write doubtful.jsonl into `work`.

    With `remove`, doubtful rows are dropped from train.parquet alone. Training rows are judged out of fold. Validation
    and test rows are judged by a classifier of all training rows, so the removed rows do not depend on the test set.
    The choice of doubtful rows follows Northcutt et al. 2021, https://arxiv.org/abs/1911.00068 (cleanlab), for
    multi-label rows Thyagarajan et al. 2022, https://arxiv.org/abs/2211.13895. MOST_ROWS and MOST_SCORES limit the
    judged rows of a part; the choice does not depend on the order of the file.
    """
    files = {name: file for name in SPLITS if (file := DataFiles(work).part(name)).is_file()}
    rows = sum(pq.read_metadata(file).num_rows for file in files.values())
    judging = JUDGES.get(target_of(recipe).kind)
    if judging is None:
        return LabelErrors(rows, 0, None, [], [], Counter(), f"nothing judges labels of the task {recipe.task}")
    if recipe.data.doubtful_labels == "off":
        return LabelErrors(rows, 0, None, [], [], Counter(), "data.doubtful_labels is off")
    pa.default_memory_pool().release_unused()  # Arrow's cache of earlier rows, 120 MB for 650,000 reviews
    most = min(MOST_ROWS, MOST_SCORES // len(labels))
    with report.task("judging labels", None):
        given = {name: read_sample(file, most, recipe.seed) for name, file in files.items()}
        judge = judging.of(given["train"], labels)
        if judge is None:
            return LabelErrors(rows, 0, None, [], [], Counter(), f"fewer than two labels have {FOLDS} training rows")
        if judge.accuracy < LEAST_ACCURACY:
            reason = f"a quick classifier predicts {judge.accuracy:.0%} of the labels right, too few to judge them by"
            return LabelErrors(rows, 0, judge.accuracy, [], [], Counter(), reason)
        judged = {name: judge.of_train if name == "train" else judge.judge(given[name]) for name in files}
    found = sorted(
        (row for name, verdicts in judged.items() for row in judging.doubtful(name, verdicts, given[name], labels)),
        key=lambda row: (row.score, row.origin),
    )
    with DataFiles(work).doubtful.open("w", encoding="utf-8") as lines:
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
    return LabelErrors(rows, total, judge.accuracy, found, removed, gone, None)


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Predictions for `rows`, numbered as in the sample: `probabilities` of `labels`, float [rows, labels]."""

    rows: Ints
    labels: Ints
    probabilities: Floats


@dataclass(frozen=True, slots=True)
class _Judge(ABC):
    """Logistic regression on TF-IDF, fitted on the training rows of the labels with enough rows."""

    labels: Ints
    features: Callable[[list[str]], Any]
    model: Any
    of_train: _Verdicts
    accuracy: float

    @classmethod
    def of(cls, train: SampledRows, labels: Sequence[str]) -> "Self | None":
        """Fit on the training rows.

        Returns None where fewer than two labels have enough rows, or no word occurs in two texts.
        """
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
        except ValueError:
            return None
        model, folds = cls._classifier()
        # On such sparse rows the waiting of the threads costs ten times what they gain.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            unseen = cross_val_predict(model, features, given, cv=folds, method="predict_proba")
            model.fit(features, given)
        accuracy = cls._accuracy(given, unseen, enough)
        return cls(enough, vectorizer.transform, model, _Verdicts(rows, enough, unseen), accuracy)

    def judge(self, given: SampledRows) -> _Verdicts:
        """Predict the labels of rows that the classifier was not fitted on."""
        rows = self._judged(given.labels, self.labels)
        if not len(rows):
            return _Verdicts(rows, self.labels, np.zeros((0, len(self.labels))))
        features = self.features([given.texts[row] for row in rows])
        return _Verdicts(rows, self.labels, self.model.predict_proba(features))

    @staticmethod
    @abstractmethod
    def _with_enough(labels: Ints, count: int) -> Ints:
        """List the labels with enough rows for every fold."""

    @staticmethod
    @abstractmethod
    def _judged(labels: Ints, judged: Ints) -> Ints:
        """List the rows that a classifier of these labels can judge."""

    @staticmethod
    @abstractmethod
    def _of_labels(labels: Ints, judged: Ints) -> Ints:
        """Build the classifier's targets from the rows' labels."""

    @staticmethod
    @abstractmethod
    def _classifier() -> tuple[Any, Any]:
        """Build the classifier and its cross-validation folds."""

    @staticmethod
    @abstractmethod
    def _accuracy(given: Ints, unseen: Floats, judged: Ints) -> float:
        """Compute the out-of-fold accuracy."""

    @staticmethod
    @abstractmethod
    def numbers(own: npt.NDArray[Any]) -> list[int]:
        """List the labels of one row."""

    @staticmethod
    @abstractmethod
    def doubtful(split: str, verdicts: _Verdicts, given: SampledRows, labels: Sequence[str]) -> list[DoubtfulRow]:
        """List the rows whose label is probably wrong."""


class _OneLabelJudge(_Judge):
    @staticmethod
    def _with_enough(labels: Ints, count: int) -> Ints:
        return np.flatnonzero(np.bincount(labels, minlength=count) >= FOLDS)

    @staticmethod
    def _judged(labels: Ints, judged: Ints) -> Ints:
        return np.flatnonzero(np.isin(labels, judged))

    @staticmethod
    def _of_labels(labels: Ints, judged: Ints) -> Ints:
        del judged
        return labels

    @staticmethod
    def _classifier() -> tuple[Any, Any]:
        return LogisticRegression(), StratifiedKFold(FOLDS, shuffle=True, random_state=0)

    @staticmethod
    def _accuracy(given: Ints, unseen: Floats, judged: Ints) -> float:
        return float((judged[unseen.argmax(-1)] == given).mean())

    @staticmethod
    def numbers(own: npt.NDArray[Any]) -> list[int]:
        return [int(own)]

    @staticmethod
    def doubtful(split: str, verdicts: _Verdicts, given: SampledRows, labels: Sequence[str]) -> list[DoubtfulRow]:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_self_confidence_for_each_label

        number = {label: place for place, label in enumerate(verdicts.labels.tolist())}
        own = np.array([number[label] for label in given.labels[verdicts.rows].tolist()], dtype=np.int64)
        if len(np.unique(own)) < 2:  # cleanlab needs two labels
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
    """Classifier for multi-label rows: one wrong or missing label makes a row doubtful.

    Suggestions keep the labels that the classifier does not judge.
    """

    @staticmethod
    def _with_enough(labels: Ints, count: int) -> Ints:
        del count
        counts = labels.sum(axis=0)
        return np.flatnonzero((counts >= FOLDS) & (counts <= len(labels) - FOLDS))

    @staticmethod
    def _judged(labels: Ints, judged: Ints) -> Ints:
        del judged
        return np.arange(len(labels))

    @staticmethod
    def _of_labels(labels: Ints, judged: Ints) -> Ints:
        return labels[:, judged]

    @staticmethod
    def _classifier() -> tuple[Any, Any]:
        # Each label has few rows, and the default regularization is too strong for them.
        return OneVsRestClassifier(LogisticRegression(C=10)), KFold(FOLDS, shuffle=True, random_state=0)

    @staticmethod
    def _accuracy(given: Ints, unseen: Floats, judged: Ints) -> float:
        del judged
        return float(f1_score(given, unseen > THRESHOLD, average="micro", zero_division=0))

    @staticmethod
    def numbers(own: npt.NDArray[Any]) -> list[int]:
        return np.flatnonzero(own).tolist()

    @staticmethod
    def doubtful(split: str, verdicts: _Verdicts, given: SampledRows, labels: Sequence[str]) -> list[DoubtfulRow]:
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
"""Classifier per kind of target; labels of other kinds are not judged."""


def _remove(origins: set[str], file: Path) -> None:
    if not origins:
        return
    parquet = pq.ParquetFile(file)
    with atomic_write(file) as kept, pq.ParquetWriter(kept, parquet.schema_arrow) as writer:
        for batch in parquet.iter_batches():
            keep = [origin not in origins for origin in batch["origin"].to_pylist()]
            writer.write_table(pa.Table.from_batches([batch]).filter(pa.array(keep)))
