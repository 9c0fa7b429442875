"""The facts of a run: its stages' results and files in one tree, the input of the report and the model card.

Everything is read from the directories of the stages. Facts of stages that are not done are None.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from bentune.bundle.errors import InputError
from bentune.bundle.files import Frozen
from bentune.bundle.plan import Plan
from bentune.bundle.verdict import Verdict
from bentune.quality.quality import Paired, Report
from bentune.quality.statistics.bootstrap import Interval
from training.data.report import DataReport, DoubtfulRow
from training.pipeline.layout import DataFiles, EvaluateFiles, File, PlanFiles, StageFiles, VerifyFiles
from training.pipeline.results import DataResult, PackageResult, Result, StageRecord, TrainResult
from training.prove.evaluation import Compressed, Evaluation
from training.prove.parity import Parity
from training.recipe.file import digest
from training.recipe.recipe import Recipe
from training.search.result import DIRECTORY, RESULT, SearchResult

SHOWN_DOUBTFUL = 5
PARTS = {"train": "training", "validation": "validation", "test": "test"}
SPELLED = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mcc": "Matthews correlation",
    "brier": "Brier score",
    "roc_auc": "ROC AUC",
}

_FactT = TypeVar("_FactT", bound=BaseModel)
_ResultT = TypeVar("_ResultT", bound=Result)


class MetricChange(NamedTuple):
    """A metric of the tuned model and of another model, with intervals; `change` is None where it was not measured."""

    key: str
    other: Interval
    tuned: Interval
    change: Interval | None


class Judgement(Frozen):
    """The comparison with the served version: `numbers` and `slices` are formatted cells.

    A number has its name, the candidate's value, the served version's value, and the change. A slice has its name, its
    rows, gained and lost rows, the change in points, the probability of such a loss by chance, and the conclusion.
    """

    verdict: Verdict
    notes: list[str]
    numbers: list[tuple[str, str, str, str]]
    slices: list[tuple[str, str, str, str, str, str]]


class Facts(Frozen):
    """One run; `seconds` is the duration of each stage.

    `rows` is the data stage's whole report, and `doubtful` its first rows whose label is probably wrong. `search` is a
    search on these rows, `judged` the comparison of a retrained version.
    """

    recipe: Recipe
    recipe_digest: str
    seconds: dict[str, float]
    data: DataResult | None = None
    rows: DataReport | None = None
    doubtful: tuple[DoubtfulRow, ...] = ()
    search: SearchResult | None = None
    training: TrainResult | None = None
    evaluation: Evaluation | None = None
    parity: Parity | None = None
    plan: Plan | None = None
    packaged: PackageResult | None = None
    judged: Judgement | None = None


def facts_of(recipe: Recipe, stages: Mapping[str, Path]) -> Facts:
    """Read the facts from the directories of the finished stages.

    `stages` holds, by name, the directories of the stages that were done for this recipe. Raises InputError with the
    name of a file that cannot be read.
    """
    records = {name: _read(StageRecord, StageFiles(directory).record, name) for name, directory in stages.items()}

    def result(kind: type[_ResultT]) -> _ResultT | None:
        if kind.stage not in records:
            return None
        return _valid(kind, records[kind.stage].summary, StageFiles(stages[kind.stage]).record, kind.stage)

    def file(kind: type[_FactT], stage: type[StageFiles], file: File) -> _FactT | None:
        path = stages[stage.stage] / file.name if stage.stage in stages else None
        return _read(kind, path, stage.stage) if path is not None and path.exists() else None

    return Facts(
        recipe=recipe,
        recipe_digest=digest(recipe),
        seconds={name: record.seconds for name, record in records.items()},
        data=result(DataResult),
        rows=file(DataReport, DataFiles, DataFiles.report),
        doubtful=_doubtful(DataFiles(stages[DataFiles.stage]).doubtful) if DataFiles.stage in stages else (),
        training=result(TrainResult),
        evaluation=file(Evaluation, EvaluateFiles, EvaluateFiles.evaluation),
        parity=file(Parity, VerifyFiles, VerifyFiles.parity),
        plan=file(Plan, PlanFiles, PlanFiles.plan),
        packaged=result(PackageResult),
    )


def search_of(root: Path, fingerprint: str) -> SearchResult | None:
    """Read the search in the run directory `root`.

    The result is None where the run has no search on rows of `fingerprint`. Raises InputError for a file that cannot be
    read.
    """
    file = root / DIRECTORY / RESULT
    found = _read(SearchResult, file, "search") if file.is_file() else None
    return found if found is not None and found.fingerprint == fingerprint else None


def compared(tested: Evaluation) -> list[MetricChange]:
    """List the change of every metric from base to tuned model, in the file's order."""
    return list(_changes(tested.base, tested.difference, tested.tuned))


def compressed(tested: Evaluation, larger: Compressed) -> list[MetricChange]:
    """List the change of every metric from a larger model to the tuned model."""
    return list(_changes(larger.metrics, larger.difference, tested.tuned))


def _changes(other: Report, difference: Paired, tuned: Report) -> Iterator[MetricChange]:
    before, changed = other.metrics, difference.metrics
    for key, own in tuned.metrics.items():
        if key in before:
            yield MetricChange(key, before[key], own, changed.get(key))


def spelled(key: str) -> str:
    """Return a metric's name for reports."""
    return SPELLED.get(key, key.replace("_", " "))


def _doubtful(file: Path) -> tuple[DoubtfulRow, ...]:
    """Read the first rows of the file, those with the lowest scores.

    The result is empty where labels were not judged.
    """
    if not file.is_file():
        return ()
    try:
        with file.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, SHOWN_DOUBTFUL)]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: {error}; {_again('data')}") from None
    return tuple(_valid(DoubtfulRow, row, file, "data") for row in rows)


def _read(kind: type[_FactT], path: Path, stage: str) -> _FactT:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}; {_again(stage)}") from None
    return _valid(kind, content, path, stage)


def _valid(kind: type[_FactT], content: Any, path: Path, stage: str) -> _FactT:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise InputError(f"{path}: {where or 'content'}: {problem['msg']}; {_again(stage)}") from None


def _again(stage: str) -> str:
    return f"run `bentune {stage} {'RECIPE' if stage == 'search' else '--force RECIPE'}` again"
