"""The facts of a run: what its stages wrote down, in one tree of which the report and the model card are made.

Everything is read from the directories of stages; of a run that stopped half way the later parts are None.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rollout.bootstrap import Interval
from service.baseline import Baseline
from service.errors import InputError
from service.plan import Plan
from training.data_report import REPORT, DataReport
from training.evaluation import FILE, Evaluation
from training.parity import Hop
from training.recipe import Recipe
from training.recipe_file import digest
from training.run_dir import RECORD, StageRecord

PARTS = {"train": "training", "validation": "validation", "test": "held out"}
SPELLED = {"macro_f1": "macro F1", "micro_f1": "micro F1", "mcc": "Matthews correlation", "roc_auc": "ROC AUC"}

Known = TypeVar("Known", bound=BaseModel)


class _Fact(BaseModel):
    """A part of what a stage wrote: keys that no report shows are passed over."""

    model_config = ConfigDict(frozen=True)


class Dropped(_Fact):
    """Rows that were left out for one reason; `samples` names a few by where they were read."""

    rows: int
    samples: list[str]


class ParentRows(_Fact):
    """The version that this one continues, and how many of the held-out and the training rows are its own."""

    tag: str
    reference: int
    fresh: int
    trained_again: int
    trained_new: int


class DataFacts(_Fact):
    """The labelled rows: where they are from, and how many of which label are in each part."""

    source: list[str]
    fingerprint: str
    labels: list[str]
    rows: dict[str, int]
    rows_by_label: dict[str, dict[str, int]]
    dropped: dict[str, Dropped]
    parent: ParentRows | None = None


class Parameters(_Fact):
    """How many weights there are, and how many of them are trained."""

    trainable: int
    total: int


class CurvePoint(_Fact):
    """What was logged after a step: the mean loss since the point before, or the loss on the validation rows."""

    step: int
    epoch: float
    learning_rate: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    eval_accuracy: float | None = None


class TrainingFacts(_Fact):
    """How the model was trained; `warnings` say in words what its curves warn of."""

    base: str
    base_sha256: str
    parameters: Parameters
    learning_rate: float
    steps: int
    resumed_at_step: int
    loss: float
    curve: list[CurvePoint]
    warnings: list[str] = []


class Compared(NamedTuple):
    """A metric of both models with its intervals; `change` where the difference was measured as well."""

    key: str
    base: Interval
    tuned: Interval
    change: Interval | None


class Parity(_Fact):
    """The chain from the trained model to the served one."""

    rows: int
    hops: list[Hop]

    @property
    def largest_difference(self) -> float:
        """Of a logit, at any hop."""
        return max((hop.largest_difference or 0.0 for hop in self.hops), default=0.0)


class Packaged(_Fact):
    """What the run made: tags in BentoML's stores, and what it was made with."""

    model: str
    bento: str
    digest: str
    content: str
    weights_sha256: str
    code_revision: str
    tools: dict[str, str]


class Facts(_Fact):
    """A run. `rows` is all that is known of the rows, `seconds` how long each stage took, `onnx_bytes` fp32's size."""

    recipe: Recipe
    recipe_digest: str
    seconds: dict[str, float]
    data: DataFacts | None = None
    rows: DataReport | None = None
    training: TrainingFacts | None = None
    evaluation: Evaluation | None = None
    onnx_bytes: int | None = None
    parity: Parity | None = None
    plan: Plan | None = None
    baseline: Baseline | None = None
    packaged: Packaged | None = None


def facts_of(recipe: Recipe, stages: Mapping[str, Path]) -> Facts:
    """Read what `stages`, the directories of those that were done for this recipe, by name, hold.

    Raises InputError that names the file for what no stage wrote.
    """
    records = {name: _read(StageRecord, directory / RECORD, name) for name, directory in stages.items()}

    def summary(kind: type[Known], name: str) -> Known | None:
        return _valid(kind, records[name].summary, stages[name] / RECORD, name) if name in records else None

    def file(kind: type[Known], stage: str, name: str) -> Known | None:
        return _read(kind, stages[stage] / name, stage) if stage in stages and (stages[stage] / name).exists() else None

    return Facts(
        recipe=recipe,
        recipe_digest=digest(recipe),
        seconds={name: record.seconds for name, record in records.items()},
        data=summary(DataFacts, "data"),
        rows=file(DataReport, "data", REPORT),
        training=summary(TrainingFacts, "train"),
        evaluation=file(Evaluation, "evaluate", FILE),
        onnx_bytes=records["export"].summary["onnx_bytes"] if "export" in records else None,
        parity=file(Parity, "verify", "parity.json"),
        plan=file(Plan, "plan", "plan.json"),
        baseline=file(Baseline, "plan", "baseline.json"),
        packaged=file(Packaged, "package", "artifacts.json"),
    )


def compared(tested: Evaluation) -> list[Compared]:
    """Every metric of the whole, in the order in which it is written down."""
    found = []
    for key in type(tested.tuned).model_fields:
        base, tuned = getattr(tested.base, key), getattr(tested.tuned, key)
        if isinstance(base, Interval) and isinstance(tuned, Interval):
            found.append(Compared(key, base, tuned, getattr(tested.difference, key, None)))
    errors = (tested.base.calibration.error, tested.tuned.calibration.error)
    return [*found, Compared("calibration_error", *errors, None)]


def spelled(key: str) -> str:
    """A metric's name for people."""
    return SPELLED.get(key, key.replace("_", " "))


def _read(kind: type[Known], path: Path, stage: str) -> Known:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}; {_again(stage)}") from None
    return _valid(kind, content, path, stage)


def _valid(kind: type[Known], content: Any, path: Path, stage: str) -> Known:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise InputError(f"{path}: {where or 'content'}: {problem['msg']}; {_again(stage)}") from None


def _again(stage: str) -> str:
    return f"run `bentune {stage} --force RECIPE` again"
