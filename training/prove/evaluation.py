"""Schema of evaluation.json, the measurements of the base model and the tuned model on the test set."""

from typing import Any

from pydantic import Field, SerializeAsAny, model_validator

from bentune.bundle.files import Frozen
from bentune.bundle.verdict import Difference
from bentune.quality.minimum import Minimum
from bentune.quality.quality import Paired, Report
from bentune.quality.registry import QUALITIES
from bentune.quality.statistics.bootstrap import Interval
from bentune.quality.statistics.calibration import Calibration

EXCERPT = 300
"""Characters of a text that are kept, because the file goes into the bundle."""
SMALL = 30
"""Number of rows below which a slice's metrics are mostly chance."""


class Changed(Frozen):
    """A row whose answer changed; `confidence` is the tuned model's in its answer, None where answers have none.

    For multi-label rows `gold` and the answers name all labels of a row. `confidence` is then the confidence of the
    most confident wrong decision on a label; where every decision is right, of the most confident one. The same is true
    of a Mistake.
    """

    text: str
    gold: str
    base: str
    tuned: str
    confidence: float | None


class Mistake(Frozen):
    """Row that the tuned model gets wrong; `origin` is its place in the source, scores are probabilities."""

    text: str
    origin: str
    gold: str
    predicted: str
    confidence: float | None
    gold_score: float | None


class Slice(Frozen):
    """The tuned model on the rows in which the column `by` has this value, with the `metrics` of a slice.

    `small` is true for fewer than SMALL rows.
    """

    by: str
    value: str
    rows: int
    small: bool
    metrics: dict[str, Interval]


class Scaled(Frozen):
    """Effect on the test set of a `temperature`, which was fitted on `rows` validation rows.

    Values with `before` are the tuned model's without it. `error` is the paired change of the expected calibration
    error, below 0 where it fell.
    """

    temperature: float
    rows: int
    before: Calibration
    log_loss_before: Interval
    brier_before: Interval
    error: Difference


class Compressed(Frozen):
    """Metrics of a larger model from which the tuned model was made, and the difference to the tuned model."""

    metrics: SerializeAsAny[Report]
    difference: SerializeAsAny[Paired]


class Evaluation(Frozen):
    """Content of evaluation.json. `tuned` is the model as served, calibrated with `calibrate.temperature`.

    `target` is the kind of the target, `headline` the metric that decides. `mistakes` are the worst, the worst first.
    Runs made before there was a `minimum` have None.
    """

    target: str
    headline: str
    base: SerializeAsAny[Report]
    tuned: SerializeAsAny[Report]
    difference: SerializeAsAny[Paired]
    changed: list[Changed]
    mistakes: list[Mistake]
    slices: list[Slice]
    minimum: Minimum | None = None
    temperature: Scaled | None = None
    compressed: dict[str, Compressed] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _read_reports(cls, entries: Any) -> Any:
        """Read each report with the class of its target."""
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
