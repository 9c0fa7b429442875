"""The facts of a run: what its stages wrote down, in one tree of which the report and the model card are made.

Everything is read from the directories of stages; of a run that stopped half way the later parts are None.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from bentune.bundle.baseline import Baseline
from bentune.bundle.errors import InputError
from bentune.bundle.plan import Plan
from bentune.bundle.verdict import Verdict
from bentune.quality.bootstrap import Interval
from bentune.quality.quality import Paired, Report
from training.data.report import REPORT, DataReport
from training.pipeline.run_dir import RECORD, StageRecord
from training.prove.evaluation import FILE, Compressed, Evaluation
from training.recipe.file import digest
from training.recipe.recipe import Recipe
from training.report.shapes import DataFacts, DoubtfulRow, Fact, Packaged, Parity, TrainingFacts
from training.search.result import DIRECTORY, RESULT, SearchResult

DOUBTFUL = "doubtful.jsonl"
SHOWN_DOUBTFUL = 5
PARTS = {"train": "training", "validation": "validation", "test": "held out"}
SPELLED = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mcc": "Matthews correlation",
    "brier": "Brier score",
    "roc_auc": "ROC AUC",
}

_FactT = TypeVar("_FactT", bound=BaseModel)


class MetricChange(NamedTuple):
    """A metric of the tuned model and of another one, with their intervals; `change` where it was measured as well."""

    key: str
    other: Interval
    tuned: Interval
    change: Interval | None


class Judgement(Fact):
    """What a comparison with the version that is served found: `numbers` and `slices` are cells to show, in words.

    A number is what it is of, the candidate's, the served one's, and the change. A slice is its name, its rows, gained
    and lost ones, the change in points, the probability that chance made it worse, and what that says.
    """

    verdict: Verdict
    notes: list[str]
    numbers: list[tuple[str, str, str, str]]
    slices: list[tuple[str, str, str, str, str, str]]


class Facts(Fact):
    """A run. `rows` is all that is known of the rows, `seconds` how long each stage took, `onnx_bytes` fp32's size.

    `doubtful` are the first rows whose label is probably wrong. `search` is what was searched for on these rows, and
    `judged` what a retrained version was compared with.
    """

    recipe: Recipe
    recipe_digest: str
    seconds: dict[str, float]
    data: DataFacts | None = None
    rows: DataReport | None = None
    doubtful: tuple[DoubtfulRow, ...] = ()
    search: SearchResult | None = None
    training: TrainingFacts | None = None
    evaluation: Evaluation | None = None
    onnx_bytes: int | None = None
    parity: Parity | None = None
    plan: Plan | None = None
    baseline: Baseline | None = None
    packaged: Packaged | None = None
    judged: Judgement | None = None


def facts_of(recipe: Recipe, stages: Mapping[str, Path]) -> Facts:
    """Read what `stages`, the directories of those that were done for this recipe, by name, hold.

    Raises InputError that names the file for what no stage wrote.
    """
    records = {name: _read(StageRecord, directory / RECORD, name) for name, directory in stages.items()}

    def summary(kind: type[_FactT], name: str) -> _FactT | None:
        return _valid(kind, records[name].summary, stages[name] / RECORD, name) if name in records else None

    def file(kind: type[_FactT], stage: str, name: str) -> _FactT | None:
        return _read(kind, stages[stage] / name, stage) if stage in stages and (stages[stage] / name).exists() else None

    return Facts(
        recipe=recipe,
        recipe_digest=digest(recipe),
        seconds={name: record.seconds for name, record in records.items()},
        data=summary(DataFacts, "data"),
        rows=file(DataReport, "data", REPORT),
        doubtful=_doubtful(stages["data"] / DOUBTFUL) if "data" in stages else (),
        training=summary(TrainingFacts, "train"),
        evaluation=file(Evaluation, "evaluate", FILE),
        onnx_bytes=records["export"].summary["onnx_bytes"] if "export" in records else None,
        parity=file(Parity, "verify", "parity.json"),
        plan=file(Plan, "plan", "plan.json"),
        baseline=file(Baseline, "plan", "baseline.json"),
        packaged=file(Packaged, "package", "artifacts.json"),
    )


def search_of(root: Path, fingerprint: str) -> SearchResult | None:
    """What `bentune search` found in the run directory `root`; None where it did not search on rows of `fingerprint`.

    Raises InputError that names the file for what no search wrote.
    """
    file = root / DIRECTORY / RESULT
    found = _read(SearchResult, file, "search") if file.is_file() else None
    return found if found is not None and found.fingerprint == fingerprint else None


def compared(tested: Evaluation) -> list[MetricChange]:
    """Every metric of the whole, from the base model to the tuned one, in the order in which it is written down."""
    return list(_changes(tested.base, tested.difference, tested.tuned))


def compressed(tested: Evaluation, larger: Compressed) -> list[MetricChange]:
    """The same from a larger model to the tuned one."""
    return list(_changes(larger.metrics, larger.difference, tested.tuned))


def _changes(other: Report, difference: Paired, tuned: Report) -> Iterator[MetricChange]:
    before, changed = other.metrics, difference.metrics
    for key, own in tuned.metrics.items():
        if key in before:
            yield MetricChange(key, before[key], own, changed.get(key))


def spelled(key: str) -> str:
    """A metric's name for people."""
    return SPELLED.get(key, key.replace("_", " "))


def _doubtful(file: Path) -> tuple[DoubtfulRow, ...]:
    """The first rows of the file, which has the most doubtful first; none where labels were not judged."""
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
