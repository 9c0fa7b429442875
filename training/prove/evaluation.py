"""evaluation.json: what was measured on the held-out rows, of the base model and of the tuned one."""

from typing import Any

from pydantic import Field, SerializeAsAny, model_validator

from bentune.bundle.files import Frozen
from bentune.bundle.verdict import Difference
from bentune.quality.bootstrap import Interval
from bentune.quality.calibration import Calibration
from bentune.quality.quality import Paired, Report
from bentune.quality.registry import QUALITIES

FILE = "evaluation.json"
EXCERPT = 300
"""Characters of a text that are shown: the file goes into the bundle."""
SMALL = 30
"""Rows below which a slice's numbers are mostly luck."""


class Changed(Frozen):
    """A row whose answer changed; `confidence` is the tuned model's in its answer, None where answers have none.

    Where rows have any number of labels `gold` and the answers name all of a row's, and `confidence` is in the surest
    decision on one of them, the surest wrong one where one is wrong; so it is in a Mistake.
    """

    text: str
    gold: str
    base: str
    tuned: str
    confidence: float | None


class Mistake(Frozen):
    """A row that the tuned model answers wrong; `origin` is its place in the source, the scores are probabilities."""

    text: str
    origin: str
    gold: str
    predicted: str
    confidence: float | None
    gold_score: float | None


class Slice(Frozen):
    """The tuned model on the rows in which the column `by` has this value: `metrics` are those that a slice shows.

    `small` when there are fewer than SMALL rows.
    """

    by: str
    value: str
    rows: int
    small: bool
    metrics: dict[str, Interval]


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

    metrics: SerializeAsAny[Report]
    difference: SerializeAsAny[Paired]


class Evaluation(Frozen):
    """The whole file. `tuned` is the model as it is served: calibrated where the recipe asks for that.

    `target` is the kind of the target, `headline` the metric that decides. `mistakes` are the worst, the worst first.
    """

    target: str
    headline: str
    base: SerializeAsAny[Report]
    tuned: SerializeAsAny[Report]
    difference: SerializeAsAny[Paired]
    changed: list[Changed]
    mistakes: list[Mistake]
    slices: list[Slice]
    temperature: Scaled | None = None
    compressed: dict[str, Compressed] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _read_reports(cls, entries: Any) -> Any:
        """Read each report as that of the target."""
        if not isinstance(entries, dict) or isinstance(entries.get("tuned"), Report):
            return entries
        if (quality := QUALITIES.get(str(entries.get("target")))) is None:
            raise ValueError(f"target is none of {', '.join(QUALITIES)}")
        read, change = quality.report.model_validate, quality.paired_report.model_validate
        found = entries | {name: read(entries.get(name)) for name in ("base", "tuned")}
        found["difference"] = change(entries.get("difference"))
        found["compressed"] = {
            name: {"metrics": read(one["metrics"]), "difference": change(one["difference"])}
            for name, one in dict(entries.get("compressed", {})).items()
        }
        return found
