"""The results of the stages: each leaves one in its stage.json for later stages, the report and the command line.

Keys that a run does not have, such as `teacher` without a distillation, are not written: see `Result.written`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bentune.bundle.errors import GateError
from bentune.bundle.files import Frozen
from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import FileEntry
from bentune.bundle.plan import Entry
from bentune.quality.statistics.bootstrap import Interval
from training.pipeline.layout import RECORD

VALIDATED = "eval_"
"""The prefix that transformers puts before the name of each metric of the validation rows."""


class Result(Frozen):
    """The result of one stage; `stage` is its name."""

    stage: ClassVar[str]

    def written(self) -> dict[str, Any]:
        """Return the JSON object of the values that the stage set.

        A default that the stage left alone has no key.
        """
        return self.model_dump(mode="json", exclude_unset=True)

    def require_passed(self) -> None:
        """Raise GateError when the result forbids to package the model."""


R = TypeVar("R", bound=Result)


class Dropped(Frozen):
    """Rows that were left out for one reason; `samples` are the origins of a few."""

    rows: int
    samples: list[str]


class Cleaned(Frozen):
    """Rows that one cleaning rule matched: `fixed`, or `found` and left unchanged."""

    rows: int
    effect: Literal["fixed", "found"]
    samples: list[str]


class LabelsPerRow(Frozen):
    """The mean number of labels of a row in one part, and the number of rows without any."""

    mean: float
    without: int


class SplitReport(Frozen):
    """The rule by which rows were held out.

    `label`: a share of each label. `group`: all rows of one value of `column` are in the same part. `time`: the newest
    rows by `column`; `held_out_from` is their first time, in ISO format or as a number. `hub`: the hub's own split.
    `continued`: the parent's rows kept their part, and the rule assigned only the new rows.
    """

    kind: Literal["label", "group", "time", "hub"]
    seed: int
    test: float | str
    validation: float
    column: str | None = None
    groups: int | None = Field(default=None, description="number of groups")
    held_out_from: str | None = None
    continued: bool = False


class ParentRows(Frozen):
    """The parent, by tag and content digest, and numbers of its rows and of new rows.

    Test rows: `reference` are in the parent's test set too, with the same label; `relabelled` are too, with another
    label now; `fresh` are new; `bentune compare` uses `compared`. Training rows: `trained_again` are the parent's,
    `trained_new` are new. The data no longer has `missing` of the parent's test rows and `trained_gone` of its training
    rows.
    """

    tag: str
    content: str
    reference: int
    relabelled: int
    fresh: int
    missing: int
    trained_gone: int
    compared: int
    trained_again: int
    trained_new: int


class DoubtfulLabel(Frozen):
    """A row whose label is probably wrong; `score` is the probability of this label."""

    split: str
    origin: str
    label: str
    suggested: str
    score: float


class DoubtfulLabels(Frozen):
    """Numbers of rows whose label is probably wrong, by part, of `judged` rows.

    `not_judged` is the reason why no row was judged. `accuracy` is the out-of-fold accuracy of the quick classifier.
    `first` are the rows with the lowest scores.
    """

    rows: int
    judged: int
    accuracy: float | None
    found: dict[str, int]
    removed: int
    not_judged: str | None
    first: list[DoubtfulLabel]


class TokenCoverage(Frozen):
    """Counts over a sample of the training rows, as the tokenizer reads them.

    `unknown` of the `tokens` are its unknown token, special tokens aside. `truncated` of the `rows` are longer than
    max_tokens; the longest has `longest` tokens.
    """

    rows: int = Field(ge=1)
    tokens: int
    unknown: int
    truncated: int
    longest: int

    @property
    def unknown_share(self) -> float:
        """The share of tokens that are unknown."""
        return self.unknown / max(1, self.tokens)

    @property
    def truncated_share(self) -> float:
        """The share of rows that are cut."""
        return self.truncated / self.rows


class DataResult(Result):
    """The labelled rows: their sources, the left-out rows, and the numbers of rows by part and label.

    `fingerprint` is the sha256 over the rows' keys. `labels_a_row` is None where each row has one label. `parent` is
    set where this version continues another. `tokens` is None for images, and where the tokenizer could not be read.
    `joined` has the labels that looked like another one, with the name that they were joined under.
    """

    stage = "data"

    source: list[str]
    fingerprint: str
    labels: list[str]
    rows: dict[str, int]
    rows_by_label: dict[str, dict[str, int]]
    labels_a_row: dict[str, LabelsPerRow] | None
    dropped: dict[str, Dropped]
    cleaned: dict[str, Cleaned]
    read: int
    split: SplitReport
    doubtful_labels: DoubtfulLabels
    parent: ParentRows | None = None
    tokens: TokenCoverage | None = None
    joined: dict[str, str] = Field(default={})


class Parameters(Frozen):
    """Numbers of weights."""

    trainable: int
    total: int


class TrainedRows(Frozen):
    """The training rows after balance and augmentation: counts by label before and after, and weights in the loss.

    `perturbed` is the number of perturbed copies among the `rows`.
    """

    rows: int
    perturbed: int
    by_label: dict[Literal["given", "trained"], dict[str, int]]
    weights: dict[str, float] | None


class Hardware(Frozen):
    """The hardware of the training; `gpus` are names."""

    cpu: Cpu
    gpus: list[str]


class TeacherFiles(Frozen):
    """teacher.json: the teacher of a distillation, by name and with the digest of its files."""

    source: str
    sha256: str


class DistilledFrom(TeacherFiles):
    """The teacher of a distillation; `training_accuracy` is its accuracy on the training rows."""

    training_accuracy: float


class CurvePoint(Frozen):
    """One point of a learning curve: the mean training loss since the point before, or metrics of the validation set.

    The names of metrics have the prefix VALIDATED, as transformers logs them.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    step: int
    epoch: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    loss: float | None = None
    eval_loss: float | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the validation rows by name, without their loss."""
        return {key.removeprefix(VALIDATED): value for key, value in self.__pydantic_extra__.items()}

    def measured(self, metric: str) -> float | None:
        """Return a metric of the validation rows, `loss` included.

        Returns None where this point has none.
        """
        return self.eval_loss if metric == "loss" else self.metrics.get(metric)


class Shrunk(Frozen):
    """The size of the trained model before and after pruning; `zeros` is a share of the linear weights.

    Numbers of heads and neurons are 0 unless pruning removes them.
    """

    kind: str
    amount: float
    parameters_before: int
    parameters: int
    zeros: float
    heads: int = 0
    heads_before: int = 0
    neurons: int = 0
    neurons_before: int = 0


class Pruned(Shrunk):
    """The pruned model, and the second training after pruning."""

    learning_rate: float
    steps: int
    resumed_at_step: int
    loss: float
    best_step: int | None
    curve: list[CurvePoint]


class TrainStart(Frozen):
    """The start of a training. `base` is the base model, or the parent's tag after a warm start.

    `head` describes, for a base model that is a classifier, the labels that it shares with the data.
    """

    base: str
    base_sha256: str
    method: str
    parameters: Parameters
    training_rows: TrainedRows
    learning_rate: float
    hardware: Hardware
    teacher: DistilledFrom | None = None
    head: str = ""


class TrainResult(TrainStart, Result):
    """The training of the model; `warnings` are about its learning curves, `loss` is the mean over all steps.

    `best_step` is the step whose weights were kept, None without a validation set. `sharded` is true when FSDP
    distributed the weights over the processes.
    """

    stage = "train"

    steps: int
    resumed_at_step: int
    loss: float
    best_step: int | None
    stopped_early: bool
    precision: str
    processes: int
    sharded: bool
    warnings: list[str]
    curve: list[CurvePoint]
    pruned: Pruned | None = None


class MergeResult(Result):
    """The merged weights."""

    stage = "merge"

    weights_sha256: str


class Temperature(Frozen):
    """The temperature that was fitted on `rows` validation rows; the losses are means of these rows, in nats.

    `layer` is the layer that was divided. `problem` is empty, or the reason why the `temperature` is 1.
    """

    temperature: float
    rows: int
    log_loss_before: float
    log_loss_after: float
    layer: str = ""
    problem: str = ""


class CalibrateResult(Temperature, Result):
    """The temperature, and the weights that it was folded into."""

    stage = "calibrate"

    weights_sha256: str


class EvaluateResult(Result):
    """The headline metric on `rows` test rows: of base, tuned model, and the larger models that it was made from.

    `problem` is what the tuned model lacks of `evaluate.minimum`, in words; empty where it lacks nothing.
    """

    stage = "evaluate"

    base: Interval
    tuned: Interval
    teacher: Interval | None = None
    dense: Interval | None = None
    rows: int
    problem: str = ""

    def require_passed(self) -> None:
        """Raise GateError where the model misses the minimum."""
        if self.problem:
            raise GateError("minimum", f"evaluate: on {self.rows} test rows {self.problem}")


class ExportResult(Result):
    """The ONNX file in fp32."""

    stage = "export"

    onnx_sha256: str
    onnx_bytes: int


class VerifyResult(Result):
    """The largest logit difference at each hop, on `rows` test rows."""

    stage = "verify"

    merge: float | None
    calibrate: float | None = None
    export: float | None
    batch: float | None
    rows: int


class PlanResult(Entry, Result):
    """The plan's first choice."""

    stage = "plan"


class PackageResult(Result):
    """The stored bundle and Bento: `model` and `bento` are tags in BentoML's stores.

    `bundle` and `bento_path` are directories. `content` is the content digest. `weights_sha256` is the sha256 of the
    merged model, from which a warm start continues.
    """

    stage = "package"

    model: str
    bundle: str
    digest: str
    content: str
    weights_sha256: str
    bento: str
    bento_path: str
    code_revision: str
    tools: dict[str, str]


RESULTS: dict[str, type[Result]] = {
    kind.stage: kind
    for kind in (
        DataResult,
        TrainResult,
        MergeResult,
        CalibrateResult,
        EvaluateResult,
        ExportResult,
        VerifyResult,
        PlanResult,
        PackageResult,
    )
}
"""Class of the result by the stage's name."""


class StageRecord(BaseModel):
    """stage.json: the key for which the stage was done, its files, and its result as JSON in `summary`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    key: str
    files: dict[str, FileEntry]
    seconds: float
    summary: dict[str, Any]

    @property
    def digest(self) -> str:
        """Digest over files and result: a change makes later stages run again."""
        entries = sorted((name, entry.sha256) for name, entry in self.files.items())
        return hashlib.sha256(json.dumps([entries, self.summary], sort_keys=True).encode()).hexdigest()

    def result(self, kind: type[R]) -> R:
        """Return the stage's result.

        Raises ValidationError where other code wrote it in another form.
        """
        return kind.model_validate(self.summary)


def result_in(directory: Path, kind: type[R]) -> R:
    """Read the result of a stage from its directory.

    Raises ValidationError where other code wrote it in another form.
    """
    return StageRecord.model_validate_json((directory / RECORD).read_bytes()).result(kind)
