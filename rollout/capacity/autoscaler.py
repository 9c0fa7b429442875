"""Algorithm of the HorizontalPodAutoscaler, without a cluster or a clock.

Sources are the Kubernetes documentation, "Horizontal Pod Autoscaling" (algorithm details, configurable scaling
behavior), and the controller's source (pkg/controller/podautoscaler: replica_calculator.go, horizontal.go). The
simulation and the run of real processes use the same class, so that both scale alike.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from bentune.bundle.errors import InputError
from bentune.bundle.files import Frozen

SYNC_S = 15.0
"""Period of the controller's decisions: --horizontal-pod-autoscaler-sync-period."""
TOLERANCE = 0.1
"""Largest distance from 1 of metric / target at which nothing changes: --horizontal-pod-autoscaler-tolerance."""


class Policy(Frozen):
    """Policy that bounds the change within any `period_s` seconds to `value` pods or percent."""

    kind: Literal["Pods", "Percent"]
    value: int = Field(gt=0)
    period_s: int = Field(gt=0, le=1800)

    def bound(self, start: int, sign: Literal[1, -1]) -> int:
        """Return the most pods allowed from `start`; with `sign` -1 the fewest."""
        if self.kind == "Pods":
            return start + sign * self.value
        changed = start * (1 + sign * self.value / 100)
        # Growth is rounded up: a small percentage of few pods would otherwise never add one.
        return math.ceil(changed) if sign > 0 else int(changed)


class Rules(Frozen):
    """Rules of one direction: the widest ("Max") or the narrowest ("Min") of its policies applies.

    Recommendations are kept for `stabilization_s` seconds, and the most cautious of them applies.
    """

    stabilization_s: int = Field(ge=0, le=3600)
    policies: tuple[Policy, ...] = Field(min_length=1)
    select: Literal["Max", "Min", "Disabled"] = "Max"

    def bound(self, current: int, changes: Sequence[tuple[float, int]], now: float, sign: Literal[1, -1]) -> int:
        """Return the bound of `current` pods at `now`, after `changes` of (time, pods)."""
        if self.select == "Disabled":
            return current
        bounds = [
            policy.bound(current - sum(change for at, change in changes if at > now - policy.period_s), sign)
            for policy in self.policies
        ]
        # The widest change is the largest number of pods upwards, and the smallest downwards.
        bound = max(bounds) if (self.select == "Max") is (sign > 0) else min(bounds)
        return max(bound, current) if sign > 0 else min(bound, current)


SCALE_UP = Rules(
    stabilization_s=0,
    policies=(Policy(kind="Percent", value=100, period_s=15), Policy(kind="Pods", value=4, period_s=15)),
)
SCALE_DOWN = Rules(stabilization_s=300, policies=(Policy(kind="Percent", value=100, period_s=15),))


class MetricTarget(Frozen):
    """Target for the mean of one metric over the pods, in the metric's unit, exact to a thousandth."""

    metric: str
    mean: float = Field(ge=0.001)


class Scaling(Frozen):
    """Settings of a HorizontalPodAutoscaler with metrics of pods.

    The defaults are those of autoscaling/v2.
    """

    min_replicas: int = Field(ge=1)
    max_replicas: int = Field(ge=1)
    targets: tuple[MetricTarget, ...] = Field(min_length=1)
    tolerance: float = Field(default=TOLERANCE, ge=0, lt=1)
    up: Rules = SCALE_UP
    down: Rules = SCALE_DOWN

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self


class Autoscaler:
    """Autoscaler with the memory of its recommendations.

    Call `desired` every SYNC_S seconds and scale to the result, which the next call assumes.
    """

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self._recommended: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def desired(
        self, now: float, current: int, metrics: Mapping[str, Sequence[float]], *, unready: int = 0, missing: int = 0
    ) -> int:
        """Return the number of pods to scale to at `now`, in seconds of a monotonic clock.

        `current` is the number last scaled to. `metrics` has, by name, the value of each pod that has one. `unready`
        pods have not started, and `missing` pods run without a metric; pods that shut down are in none of these. The
        metric that needs the most pods decides. Without any value nothing changes. While one metric has no value, no
        pod is removed. Raises InputError for a number of pods below 0.
        """
        if min(current, unready, missing) < 0:
            raise InputError(f"{current} pods, {unready} unready, {missing} without a metric; none may be below 0")
        wanted = self._wanted(now, current, metrics, unready, missing)
        if wanted != current:
            self._changes.append((now, wanted - current))
        return wanted

    def _wanted(
        self, now: float, current: int, metrics: Mapping[str, Sequence[float]], unready: int, missing: int
    ) -> int:
        scaling = self.scaling
        if current == 0:
            # Scaled to 0 by hand, which switches the autoscaler off.
            return 0
        if not scaling.min_replicas <= current <= scaling.max_replicas:
            return min(max(current, scaling.min_replicas), scaling.max_replicas)
        proposals = [
            proposal(
                current,
                metrics.get(target.metric, ()),
                target.mean,
                tolerance=scaling.tolerance,
                unready=unready,
                missing=missing,
            )
            for target in scaling.targets
        ]
        known = [pods for pods in proposals if pods is not None]
        if not known or (len(known) < len(proposals) and max(known) < current):
            return current
        return self._limited(now, current, self._stabilized(now, current, max(known)))

    def _stabilized(self, now: float, current: int, proposed: int) -> int:
        """Limit growth to the lowest and shrinking to the highest proposal in the windows."""
        up, down = self.scaling.up.stabilization_s, self.scaling.down.stabilization_s
        while self._recommended and self._recommended[0][0] <= now - max(up, down):
            self._recommended.popleft()
        lowest = min([proposed, *(pods for at, pods in self._recommended if at > now - up)])
        highest = max([proposed, *(pods for at, pods in self._recommended if at > now - down)])
        self._recommended.append((now, proposed))
        return min(max(current, lowest), highest)

    def _limited(self, now: float, current: int, wanted: int) -> int:
        scaling = self.scaling
        longest = max(policy.period_s for policy in (*scaling.up.policies, *scaling.down.policies))
        while self._changes and self._changes[0][0] <= now - longest:
            self._changes.popleft()
        if wanted > current:
            return min(wanted, scaling.max_replicas, scaling.up.bound(current, self._changes, now, 1))
        if wanted < current:
            return max(wanted, scaling.min_replicas, scaling.down.bound(current, self._changes, now, -1))
        return current


def proposal(
    current: int, values: Sequence[float], target: float, *, tolerance: float, unready: int = 0, missing: int = 0
) -> int | None:
    """Return the pods that bring the metric's mean to `target`; None without a value.

    Windows and policies are not applied. Pods without a value never speed up a change: they count as idle while the
    mean is above the target, and as at the target while it is below. If that reverses the direction, nothing changes.
    """
    if not values:
        return None
    goal = _milli(target)
    total, count = sum(map(_milli, values)), len(values)
    ratio = total // count / goal
    grows_with_unready = unready > 0 and ratio > 1
    if missing == 0 and not grows_with_unready:
        return current if _within(ratio, tolerance) else math.ceil(ratio * count)
    if ratio < 1:
        total += missing * goal
    count += missing + (unready if grows_with_unready else 0)
    careful = total // count / goal
    if _within(careful, tolerance) or ratio < 1 < careful or careful < 1 < ratio:
        return current
    wanted = math.ceil(careful * count)
    turned = wanted > current if careful < 1 else wanted < current
    return current if turned else wanted


def _within(ratio: float, tolerance: float) -> bool:
    return 1 - tolerance <= ratio <= 1 + tolerance


def _milli(value: float) -> int:
    """Round `value` up to whole thousandths, as the controller does.

    The rounding error of the float is removed first.
    """
    return math.ceil(round(value * 1000, 6))
