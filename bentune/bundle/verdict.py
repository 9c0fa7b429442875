"""Verdict of `bentune compare` on a candidate, written into evidence.json.

The settings of a comparison are here too: a recipe has them, and the bundle's evidence stores them.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field, TypeAdapter

from bentune.bundle.files import Frozen

VERDICTS = "verdicts"  # the key in evidence.json; the newest is last
MAX_MARGIN = 50.0


class Decision(StrEnum):
    """Decision about the candidate."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    NEED_MORE_ROWS = "NEED MORE ROWS"


class CompareSettings(Frozen):
    """Conditions for a candidate to replace the served version; the recipe's section `compare`."""

    margin: float = Field(
        default=1.0, gt=0, le=MAX_MARGIN, description="points of accuracy that the candidate may lose"
    )
    alpha: float = Field(
        default=0.05, gt=0, le=0.2, description="largest probability to promote a candidate that loses the margin"
    )
    power: float = Field(
        default=0.8,
        ge=0.5,
        le=0.99,
        description="probability to promote an equally good candidate, for the required rows",
    )
    slices: list[str] = Field(
        default=[], description="columns whose values are compared one by one, besides label and length"
    )
    frozen: dict[str, str] = Field(
        default={}, description="column: value of slices that veto sooner: at twice alpha, without Holm's correction"
    )
    max_latency_ratio: float = Field(
        default=1.5, gt=0, description="largest latency of the candidate, as a ratio to the served version's"
    )
    latency_rows: int = Field(default=100, ge=10, le=10_000, description="rows that are sent one by one for latency")
    calibration_bins: int = Field(default=10, ge=2, le=100, description="bins of confidence for calibration")
    resamples: int = Field(default=1000, ge=100, le=100_000, description="bootstrap resamples")
    max_rows: int = Field(default=100_000, ge=1, le=10_000_000, description="rows to compare on; more are an error")
    examples: int = Field(default=5, ge=0, le=100, description="rows to show for each direction of a changed answer")
    seed: int = Field(default=0, ge=0, lt=2**32, description="seed of the resamples and of the order of the two sides")

    @property
    def columns(self) -> list[str]:
        """Every column of slices."""
        return list(dict.fromkeys([*self.slices, *self.frozen]))


class Judged(Frozen):
    """One side of a comparison: `content` is the bundle's content digest, `address` the address of a live service."""

    tag: str
    content: str
    address: str | None = None


class Difference(Frozen):
    """Candidate minus served, in the metric's own unit, with the ends of its interval."""

    value: float
    low: float
    high: float


class Verdict(Frozen):
    """Decision of a comparison, with the numbers behind it.

    `metric` is the judged metric, `margin` its largest accepted loss, as a share, not points. `confidence` is the level
    of the interval of `difference`. `rows_needed` is set when there were too few rows. `earlier` counts the earlier
    comparisons of this candidate: each has its own chance to pass a bad one.
    """

    decision: Decision
    reasons: list[str] = Field(min_length=1)
    created_at: datetime
    candidate: Judged
    served: Judged
    rows: int = Field(ge=1)
    data_fingerprint: str
    metric: str
    margin: float = Field(gt=0)
    confidence: float = Field(gt=0.5, lt=1)
    difference: Difference
    rows_needed: int | None = None
    earlier: int = Field(default=0, ge=0)


_VERDICTS = TypeAdapter(list[Verdict])


def verdicts_of(evidence: dict[str, Any], content: str) -> list[Verdict]:
    """Return the verdicts on the bundle with this content digest, the newest last.

    Verdicts copied from another bundle are left out. Raises pydantic's ValidationError for an invalid verdict.
    """
    return [one for one in _VERDICTS.validate_python(evidence.get(VERDICTS, [])) if one.candidate.content == content]
