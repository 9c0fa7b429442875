"""Summary of a load: percentiles, throughput, statuses, and the generator's own share."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from rollout.load.generator import Load

PERCENTS = (50.0, 90.0, 99.0, 99.9)


class Latency(BaseModel):
    """Latency of answers 200, in milliseconds; None without such an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: float | None
    p90: float | None
    p99: float | None
    p99_9: float | None
    max: float | None
    answers: int

    @classmethod
    def of(cls, load: Load, group: str | None = None) -> "Latency":
        """Compute the latency of all requests, or of one group."""
        chosen = load.ok if group is None else load.ok & (load.group == group)
        values = [_ms(seconds) for seconds in load.percentiles([*PERCENTS, 100.0], group)]
        return cls(**dict(zip(("p50", "p90", "p99", "p99_9", "max"), values, strict=True)), answers=int(chosen.sum()))

    def of_percentile(self, name: str) -> float | None:
        """Return the value of `p50`, `p90`, `p99` or `p99.9`."""
        value: float | None = getattr(self, name.replace(".", "_"))
        return value


class LoadSummary(BaseModel):
    """Summary of a load.

    Throughput counts answers 200; `statuses` counts all requests, "0" those without an answer. `generator_lag_ms` (99th
    percentile and largest) is the delay of an open loop's requests, and `generator_cpu` the share of one core that
    sending took: if either is large, the generator limited the measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    seconds: float
    requests_per_s: float
    inputs_per_s: float
    latency_ms: Latency
    groups: dict[str, Latency]
    statuses: dict[str, int]
    retry_after_s: float | None
    generator_lag_ms: tuple[float, float]
    generator_cpu: float

    @classmethod
    def of(cls, load: Load) -> "LoadSummary":
        """Summarize a load that has at least one request."""
        names = sorted(set(load.group.tolist()))
        asked_to_wait = load.retry_after_s[~np.isnan(load.retry_after_s)]
        return cls(
            requests=load.requests,
            seconds=load.seconds,
            requests_per_s=load.requests_per_s,
            inputs_per_s=load.inputs_per_s,
            latency_ms=Latency.of(load),
            groups={name: Latency.of(load, name) for name in names} if len(names) > 1 else {},
            statuses={str(status): count for status, count in load.statuses.items()},
            retry_after_s=float(np.median(asked_to_wait)) if len(asked_to_wait) else None,
            generator_lag_ms=_lag_ms(load),
            generator_cpu=load.cpu_s / load.seconds,
        )


def curve(load: Load, percents: Sequence[float]) -> list[float | None]:
    """Return latencies in milliseconds at `percents`."""
    return [_ms(seconds) for seconds in load.percentiles(percents)]


def _lag_ms(load: Load) -> tuple[float, float]:
    if not load.requests:
        return 0.0, 0.0
    late, latest = np.percentile(load.lag_s * 1000, [99, 100])
    return float(late), float(latest)


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds * 1000
