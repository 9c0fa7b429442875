"""evaluation.json: what was measured on the held-out rows, of the base model and of the tuned one."""

from pydantic import Field

from bentune.bundle.files import Frozen
from bentune.bundle.verdict import Difference
from bentune.quality.bootstrap import Interval
from bentune.quality.calibration import Calibration
from bentune.quality.classification import Classification, PairedDifference

FILE = "evaluation.json"
EXCERPT = 300
"""Characters of a text that are shown: the file goes into the bundle."""
SMALL = 30
"""Rows below which a slice's numbers are mostly luck."""


class Changed(Frozen):
    """A row whose answer changed; `confidence` is the tuned model's in its answer.

    Where rows have any number of labels `gold` and the answers name all of a row's, and `confidence` is in the surest
    decision on one of them, the surest wrong one where one is wrong; so it is in a Mistake.
    """

    text: str
    gold: str
    base: str
    tuned: str
    confidence: float


class Mistake(Frozen):
    """A row that the tuned model answers wrong; `origin` is its place in the source, the scores are probabilities."""

    text: str
    origin: str
    gold: str
    predicted: str
    confidence: float
    gold_score: float


class Slice(Frozen):
    """The tuned model on the rows in which the column `by` has this value.

    `macro_f1` is the mean over the labels that have a gold row here. `small` when there are fewer than SMALL rows.
    """

    by: str
    value: str
    rows: int
    small: bool
    accuracy: Interval
    macro_f1: Interval
    log_loss: Interval
    mean_absolute_error: Interval | None
    calibration_error: Interval


class Scaled(Frozen):
    """What dividing the logits by `temperature` did on the held-out rows; it was fitted on `rows` validation rows.

    What is `before` is of the tuned model without it; `error` is the change of the expected calibration
    error, paired, below 0 where it fell.
    """

    temperature: float
    rows: int
    before: Calibration
    log_loss_before: Interval
    brier_before: Interval
    error: Difference


class Compressed(Frozen):
    """A larger model that the tuned one was made from, and what changed from it to the tuned one."""

    metrics: Classification
    difference: PairedDifference


class Evaluation(Frozen):
    """The whole file. `tuned` is the model as it is served: calibrated where the recipe asks for that.

    `mistakes` are the most confident ones, the surest first.
    """

    base: Classification
    tuned: Classification
    difference: PairedDifference
    changed: list[Changed]
    mistakes: list[Mistake]
    slices: list[Slice]
    temperature: Scaled | None = None
    compressed: dict[str, Compressed] = Field(default={})
