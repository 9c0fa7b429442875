"""The parts of what stages wrote down that a report shows; keys that none shows are passed over."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from bentune.bundle.hardware import Cpu
from training.prove.parity import Hop

VALIDATED = "eval_"
VALIDATION_LOSS = "eval_loss"


class Fact(BaseModel):
    """A part of what a stage wrote."""

    model_config = ConfigDict(frozen=True)


class Dropped(Fact):
    """Rows that were left out for one reason; `samples` names a few by where they were read."""

    rows: int
    samples: list[str]


class ParentRows(Fact):
    """The version that this one continues, and how many of the held-out and the training rows are its own."""

    tag: str
    reference: int
    fresh: int
    trained_again: int
    trained_new: int


class DoubtfulLabels(Fact):
    """How many of `judged` rows have a label that is probably wrong, by part; `not_judged` says why none were.

    `accuracy` is that of the quick classifier that judged, on rows that it never saw.
    """

    rows: int
    judged: int
    accuracy: float | None
    found: dict[str, int]
    removed: int
    not_judged: str | None


class DoubtfulRow(Fact):
    """A row whose label is probably wrong; `score` is the probability of the label that it has."""

    split: str
    origin: str
    text: str
    label: str
    suggested: str
    score: float


class DataFacts(Fact):
    """The labelled rows: where they are from, and how many of which label are in each part."""

    source: list[str]
    fingerprint: str
    labels: list[str]
    rows: dict[str, int]
    rows_by_label: dict[str, dict[str, int]]
    dropped: dict[str, Dropped]
    doubtful_labels: DoubtfulLabels | None = None
    parent: ParentRows | None = None


class Parameters(Fact):
    """How many weights there are, and how many of them are trained."""

    trainable: int
    total: int


class CurvePoint(Fact):
    """What was logged after a step: the mean loss since the point before, or what the validation rows say.

    `metrics` are those of the validation rows, by name.
    """

    step: int
    epoch: float
    learning_rate: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    metrics: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        found = {
            key.removeprefix(VALIDATED): value
            for key, value in given.items()
            if key.startswith(VALIDATED) and key != VALIDATION_LOSS
        }
        return {"metrics": found} | given


class SeenRows(Fact):
    """What training saw in the place of the rows that it was `given`: their counts by label, and what weighs these."""

    rows: int
    perturbed: int
    by_label: dict[Literal["given", "trained"], dict[str, int]]
    weights: dict[str, float] | None = None


class Hardware(Fact):
    """What the training ran on."""

    cpu: Cpu
    gpus: list[str]


class Teacher(Fact):
    """Who was learned from; `training_accuracy` is the share of the training rows whose label it answers."""

    source: str
    training_accuracy: float


class Pruned(Fact):
    """What was taken out after the training, and how it was tuned again; `zeros` is a share of the linear weights."""

    kind: str
    parameters_before: int
    parameters: int
    zeros: float
    heads: int = 0
    heads_before: int = 0
    neurons: int = 0
    neurons_before: int = 0
    learning_rate: float
    steps: int
    best_step: int | None = None
    loss: float
    curve: list[CurvePoint]


class TrainingFacts(Fact):
    """How the model was trained; `warnings` say in words what its curves warn of.

    `best_step` is the step whose weights were kept, where there were validation rows to choose it by. `sharded` when
    the weights were spread over the processes by FSDP.
    """

    base: str
    base_sha256: str
    parameters: Parameters
    training_rows: SeenRows | None = None
    learning_rate: float
    steps: int
    resumed_at_step: int
    loss: float
    best_step: int | None = None
    stopped_early: bool = False
    precision: str | None = None
    processes: int = 1
    sharded: bool = False
    hardware: Hardware | None = None
    curve: list[CurvePoint]
    warnings: list[str] = []
    teacher: Teacher | None = None
    pruned: Pruned | None = None


class Parity(Fact):
    """The chain from the trained model to the served one."""

    rows: int
    hops: list[Hop]

    @property
    def largest_difference(self) -> float:
        """Of a logit, at any hop."""
        return max((hop.largest_difference or 0.0 for hop in self.hops), default=0.0)


class Packaged(Fact):
    """What the run made: tags in BentoML's stores, and what it was made with."""

    model: str
    bento: str
    digest: str
    content: str
    weights_sha256: str
    code_revision: str
    tools: dict[str, str]
