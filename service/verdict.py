"""The verdict: whether a candidate may replace what is served, as `bentune compare` writes it into evidence.json."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from service.frozen import Frozen

VERDICTS = "verdicts"  # the key in evidence.json; the newest is last


class Decision(StrEnum):
    """What is to be done with the candidate."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"
    NEED_MORE_ROWS = "NEED MORE ROWS"


class Judged(Frozen):
    """One side of a comparison: `content` is the bundle's content digest, `address` that of a live service."""

    tag: str
    content: str
    address: str | None = None


class Difference(Frozen):
    """Candidate minus served, in the metric's own unit, with the ends of its interval."""

    value: float
    low: float
    high: float


class Verdict(Frozen):
    """The decision with the numbers that decided.

    `metric` is what was judged, `margin` how much of it the candidate may lose, both as shares, not points.
    `confidence` is that of the interval of `difference`. `rows_needed` is set when there were too few.
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


def verdict_of(evidence: dict[str, Any], content: str) -> Verdict | None:
    """The newest verdict on the bundle whose content digest this is: one that was copied from another does not count.

    Raises pydantic's ValidationError for what `bentune compare` did not write.
    """
    verdicts = [Verdict.model_validate(one) for one in evidence.get(VERDICTS, [])]
    return next((one for one in reversed(verdicts) if one.candidate.content == content), None)
