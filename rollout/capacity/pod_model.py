"""Model of one pod at a rate, from the search for its capacity: latencies, and busy slots.

Nothing is fitted: the model interpolates linearly between the rates that were tried. That keeps effects without a
formula, such as batches that grow with the load, and the waiting that random arrivals cause.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bentune.bundle.arrays import Floats
from bentune.bundle.errors import InputError
from rollout.load.knee import Capacity, RateTrial

LEVELS = (50.0, 90.0, 99.0, 99.9)
SAME_RATE = 1e-6
LEAST_TAIL_MS = 1e-3


@dataclass(frozen=True)
class PodModel:
    """Model of one pod.

    `latencies` has, for each of the ascending `rates`, milliseconds at LEVELS, which never fall with the rate. `knee`
    is the highest rate that held the objective, and `ceiling` the highest possible one, in requests a second. `busy` is
    the mean number of the `slots` that computed at the knee. A request has `inputs` inputs.
    """

    rates: Floats
    latencies: Floats
    knee: float
    ceiling: float
    busy: float
    slots: int
    inputs: int

    @classmethod
    def of(cls, capacity: Capacity) -> Self:
        """Build the model from capacity.json.

        Raises InputError when it lacks the pod's own metrics. Up to the knee only the trials that held count: a failure
        there was a disturbance, since the confirming run held at a higher rate. Above the knee all trials count. Trials
        of one rate are averaged.
        """
        slots = slots_of(capacity)
        if capacity.signal is None or slots is None or capacity.signal.slots_busy <= 0:
            raise InputError(
                f"{capacity.server}: capacity.json has no signal that an autoscaler could read; "
                "measure a Bentune server with `bentune bench --find-knee`"
            )
        knee = capacity.rate_per_pod
        used: dict[float, list[list[float]]] = {}
        for trial in capacity.trials:
            row = _row(trial)
            if row is not None and (trial.holds or trial.rate > knee * (1 + SAME_RATE)):
                used.setdefault(trial.rate, []).append(row)
        if not used:
            raise InputError(f"{capacity.server}: capacity.json has no trial that was answered; measure it again")
        rates = sorted(used)
        means = np.array([np.mean(used[rate], axis=0) for rate in rates])
        return cls(
            rates=np.array(rates),
            # A latency that falls while the rate grows is noise: the higher one is kept.
            latencies=np.maximum.accumulate(np.maximum.accumulate(means, axis=0), axis=1),
            knee=knee,
            ceiling=max(capacity.ceiling_requests_per_s, knee),
            busy=min(capacity.signal.slots_busy, 1.0) * slots,
            slots=slots,
            inputs=capacity.inputs_per_request,
        )

    def busy_slots(self, rate: float) -> float:
        """Return the mean of `bentune_slots_busy` at `rate`.

        It is proportional up to the knee, and all slots at the ceiling.
        """
        if rate <= self.knee:
            return self.busy * rate / self.knee
        if rate >= self.ceiling:
            return float(self.slots)
        return self.busy + (self.slots - self.busy) * (rate - self.knee) / (self.ceiling - self.knee)

    def latency_ms(self, rates: Floats, percent: float, wait_ms: Floats | None = None) -> Floats:
        """Return the latency in ms at the percentile `percent`.

        Below the lowest tried rate, it is the latency at that rate. Behind a backlog a request takes `wait_ms` plus the
        time of a request alone, or the latency at its rate if that is longer. The two are not added, because the
        measured latency already includes waiting.
        """
        alone = self._quantile(rates, percent)
        if wait_ms is None:
            return alone
        return np.maximum(alone, self._quantile(np.zeros(len(rates)), percent) + wait_ms)

    def share_over(self, rates: Floats, limits_ms: Floats, wait_ms: Floats | None = None) -> Floats:
        """Return the share of requests over `limits_ms`, for each pair of rate and limit.

        Between the measured percentiles and beyond the last one, the share falls exponentially, as behind a queue. For
        a limit below 0 it is 1. `wait_ms` is as in `latency_ms`.
        """
        alone = self._share(rates, limits_ms)
        if wait_ms is None:
            return alone
        return np.maximum(alone, self._share(np.zeros(len(rates)), limits_ms - wait_ms))

    def _quantile(self, rates: Floats, percent: float) -> Floats:
        nines = -np.log10(1 - percent / 100)
        knots, depths = self._knots(rates), _DEPTHS
        found = np.zeros(len(rates))
        for index in range(len(depths) - 1):
            share = np.clip((nines - depths[index]) / (depths[index + 1] - depths[index]), 0, 1)
            found += share * (knots[:, index + 1] - knots[:, index])
        return np.asarray(found + max(nines - depths[-1], 0.0) * _tail(knots), np.float64)

    def _share(self, rates: Floats, limits_ms: Floats) -> Floats:
        knots, depths = self._knots(rates), _DEPTHS
        nines = np.zeros(len(rates))
        for index in range(len(depths) - 1):
            low, high = knots[:, index], knots[:, index + 1]
            width = np.maximum(high - low, 1e-9)
            nines += np.clip((limits_ms - low) / width, 0, 1) * (depths[index + 1] - depths[index])
        nines += np.maximum(limits_ms - knots[:, -1], 0) / _tail(knots)
        return np.asarray(10.0 ** -np.minimum(nines, 300.0), np.float64)

    def _knots(self, rates: Floats) -> Floats:
        """Return milliseconds at each of _DEPTHS, float64 [rates, depths]."""
        columns = [np.interp(rates, self.rates, self.latencies[:, index]) for index in range(len(LEVELS))]
        return np.stack([np.zeros(len(rates)), *columns], axis=1)


def slots_of(capacity: Capacity) -> int | None:
    """Return the number of batches that the pod computed at once, from its /info."""
    slots = _plan(capacity).get("slots")
    return slots if isinstance(slots, int) and slots > 0 else None


def threads_of(capacity: Capacity) -> int | None:
    """Return the cores of each slot, from its /info."""
    threads = _plan(capacity).get("threads")
    return threads if isinstance(threads, int) and threads > 0 else None


# Each level as its number of nines, in which an exponential tail is a straight line.
_DEPTHS: tuple[float, ...] = (0.0, *(float(-np.log10(1 - level / 100)) for level in LEVELS))


def _tail(knots: Floats) -> Floats:
    """Return milliseconds for each further nine, as between the last two percentiles."""
    return np.asarray(np.maximum((knots[:, -1] - knots[:, -2]) / (_DEPTHS[-1] - _DEPTHS[-2]), LEAST_TAIL_MS))


def _row(trial: RateTrial) -> list[float] | None:
    latency = trial.latency_ms
    row = [latency.p50, latency.p90, latency.p99, latency.p99_9]
    return [value for value in row if value is not None] if None not in row else None


def _plan(capacity: Capacity) -> dict[str, Any]:
    plan = (capacity.model or {}).get("plan")
    return plan if isinstance(plan, dict) else {}
