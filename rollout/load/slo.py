"""Latency objective, written as `p99=200ms`."""

import re

from pydantic import BaseModel, ConfigDict, Field

from bentune.bundle.errors import InputError
from rollout.load.latency import Latency

PERCENTILES = ("p50", "p90", "p99", "p99.9")
_SHAPE = re.compile(rf"({'|'.join(map(re.escape, PERCENTILES))})=([0-9]{{1,9}}(?:\.[0-9]{{1,6}})?)(ms|s)")


class Objective(BaseModel):
    """Objective that the latency at a percentile is at most `limit_ms` milliseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percentile: str
    limit_ms: float = Field(gt=0)

    def __str__(self) -> str:
        return f"{self.percentile}={self.limit_ms:g}ms"

    @property
    def percent(self) -> float:
        """Return the percentile as a number, such as 99.9."""
        return float(self.percentile[1:])

    def measured_ms(self, latency: Latency) -> float | None:
        """Return the latency that the objective bounds."""
        return latency.of_percentile(self.percentile)

    def held(self, latency: Latency) -> bool:
        """Return true if the latency is within the bound; false without any answer."""
        measured = self.measured_ms(latency)
        return measured is not None and measured <= self.limit_ms


def parse_objective(text: str) -> Objective:
    """Parse an objective, `PERCENTILE=NUMBERms` or `PERCENTILE=NUMBERs`.

    Raises InputError that names the accepted forms.
    """
    found = _SHAPE.fullmatch(text.strip())
    limit_ms = float(found[2]) * (1000 if found[3] == "s" else 1) if found else 0.0
    if not found or limit_ms <= 0:
        raise InputError(
            f"the objective {text!r} is not one: write {', '.join(PERCENTILES[:-1])} or {PERCENTILES[-1]}, "
            "then = and a time above 0 in ms or s, as in p99=200ms"
        )
    return Objective(percentile=found[1], limit_ms=limit_ms)
