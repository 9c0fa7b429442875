"""The autoscaler answers as the HorizontalPodAutoscaler's documentation says, and keeps its bounds whatever comes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.errors import InputError
from rollout.capacity.autoscaler import (
    SCALE_DOWN,
    SYNC_S,
    TOLERANCE,
    Autoscaler,
    MetricTarget,
    Policy,
    Rules,
    Scaling,
    proposal,
)

AT_ONCE = Rules(stabilization_s=0, policies=(Policy(kind="Percent", value=100_000, period_s=15),))

steps = st.lists(
    st.tuples(st.floats(1, 90), st.lists(st.floats(0, 10), max_size=5), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=30,
)


def scaling(least: int = 1, most: int = 100, target: float = 1.0, **given: Rules) -> Scaling:
    return Scaling(min_replicas=least, max_replicas=most, targets=(MetricTarget(metric="m", mean=target),), **given)


@pytest.mark.parametrize(
    ("current", "values", "target", "wanted"),
    [
        # "if the current metric value is 200m, and the desired value is 100m, the number of replicas will be doubled"
        (3, [0.2] * 3, 0.1, 6),
        # "if the current value is instead 50m, you'll halve the number of replicas"
        (4, [0.05] * 4, 0.1, 2),
        (3, [0.05] * 3, 0.1, 2),
        (10, [1.1] * 10, 1.0, 10),
        (10, [1.11] * 10, 1.0, 12),
        (10, [0.9] * 10, 1.0, 10),
        (10, [0.89] * 10, 1.0, 9),
        (2, [3.0, 0.0], 1.0, 3),
        (5, [], 1.0, None),
    ],
)
def test_the_ratio_decides(current: int, values: list[float], target: float, wanted: int | None) -> None:
    assert proposal(current, values, target, tolerance=TOLERANCE) == wanted


@pytest.mark.parametrize(
    ("values", "unready", "missing", "wanted"),
    [
        # Those that start count as idle: 2 x 4 slots of work over 4 pods are twice the target, and not four times.
        ([4.0, 4.0], 2, 0, 8),
        ([4.0, 4.0], 0, 2, 8),
        # The pods that are starting are enough: nothing changes.
        ([2.0, 2.0], 2, 0, 4),
        ([1.3, 1.3], 0, 2, 4),
        # With fewer pods wanted the unready are left out, and those without a metric are taken to be at the target.
        ([0.4, 0.4], 2, 0, 1),
        ([0.4, 0.4], 0, 2, 3),
        ([0.9, 0.85], 0, 2, 4),
    ],
)
def test_pods_that_say_nothing_slow_a_change_down(values: list[float], unready: int, missing: int, wanted: int) -> None:
    assert proposal(4, values, 1.0, tolerance=TOLERANCE, unready=unready, missing=missing) == wanted


@given(
    values=st.lists(st.floats(0, 10), min_size=1, max_size=6),
    unready=st.integers(0, 5),
    missing=st.integers(0, 5),
)
def test_silent_pods_never_turn_the_direction(values: list[float], unready: int, missing: int) -> None:
    current = len(values) + unready + missing
    wanted = proposal(current, values, 1.0, tolerance=TOLERANCE, unready=unready, missing=missing)
    mean = sum(values) / len(values)
    assert wanted is not None
    if missing or (unready and mean > 1.002):
        assert wanted >= current if mean > 1.002 else wanted <= current or mean > 0.998


def test_no_metric_at_all_changes_nothing() -> None:
    assert Autoscaler(scaling()).desired(0, 7, {}, missing=7) == 7


@given(current=st.integers(1, 50), shares=st.lists(st.floats(0.901, 1.099), min_size=1, max_size=20))
def test_within_the_tolerance_nothing_changes(current: int, shares: list[float]) -> None:
    values = [2.0 * share for share in shares]
    assert Autoscaler(scaling(target=2.0)).desired(0, current, {"m": values}) == current


@pytest.mark.parametrize(("current", "wanted"), [(0, 0), (1, 3), (40, 20)])
def test_pods_outside_of_the_bounds_come_inside_at_once(current: int, wanted: int) -> None:
    assert Autoscaler(scaling(3, 20)).desired(0, current, {"m": [1.0]}) == wanted


@given(steps=steps, least=st.integers(1, 10), more=st.integers(0, 20))
def test_never_below_the_least_nor_above_the_most(
    steps: list[tuple[float, list[float], int, int]], least: int, more: int
) -> None:
    autoscaler, current, now = Autoscaler(scaling(least, least + more)), least, 0.0
    for wait, values, unready, missing in steps:
        now += wait
        current = autoscaler.desired(now, current, {"m": values}, unready=unready, missing=missing)
        assert least <= current <= least + more


@given(steps=steps)
def test_the_policies_bound_the_change_within_their_period(
    steps: list[tuple[float, list[float], int, int]],
) -> None:
    """By default at most the double, or four more, of what there was 15 s ago."""
    autoscaler, history, now = Autoscaler(scaling(1, 500)), [(-1e9, 5)], 0.0
    for wait, values, unready, missing in steps:
        now += wait
        before = history[-1][1]
        after = autoscaler.desired(now, before, {"m": values}, unready=unready, missing=missing)
        start = next(pods for at, pods in reversed(history) if at <= now - 15)
        assert after <= max(before, 2 * start, start + 4)
        history.append((now, after))


@given(steps=steps, value=st.integers(1, 3), period_s=st.integers(1, 120), select=st.sampled_from(["Max", "Min"]))
def test_pods_go_no_faster_than_the_policies_let_them(
    steps: list[tuple[float, list[float], int, int]], value: int, period_s: int, select: str
) -> None:
    policies = (
        Policy(kind="Pods", value=value, period_s=period_s),
        Policy(kind="Percent", value=10, period_s=period_s),
    )
    down = Rules(stabilization_s=0, policies=policies, select=select)  # type: ignore[arg-type]
    autoscaler, history, now = Autoscaler(scaling(1, 500, down=down)), [(-1e9, 60)], 0.0
    for wait, values, unready, missing in steps:
        now += wait
        before = history[-1][1]
        after = autoscaler.desired(now, before, {"m": values}, unready=unready, missing=missing)
        start = next(pods for at, pods in reversed(history) if at <= now - period_s)
        floors = (start - value, int(start * (1 - 10 / 100)))
        assert after >= min(before, min(floors) if select == "Max" else max(floors))
        history.append((now, after))


@given(steps=steps, up=st.integers(0, 200), down=st.integers(0, 200))
def test_the_windows_pick_the_most_cautious_recommendation(
    steps: list[tuple[float, list[float], int, int]], up: int, down: int
) -> None:
    """Pods go up to the lowest and down to the highest count that was proposed.

    The policies bound nothing.
    """
    rules = {
        "up": AT_ONCE.model_copy(update={"stabilization_s": up}),
        "down": SCALE_DOWN.model_copy(update={"stabilization_s": down}),
    }
    autoscaler, current, now = Autoscaler(scaling(1, 10_000, **rules)), 5, 0.0
    proposals: list[tuple[float, int]] = []
    for wait, values, unready, missing in steps:
        now += wait
        proposed = proposal(current, values, 1.0, tolerance=TOLERANCE, unready=unready, missing=missing)
        after = autoscaler.desired(now, current, {"m": values}, unready=unready, missing=missing)
        if proposed is None:
            assert after == current
            continue
        proposals.append((now, proposed))
        lowest = min(pods for at, pods in proposals if at > now - up or at == now)
        highest = max(pods for at, pods in proposals if at > now - down or at == now)
        assert after == max(min(max(current, lowest), highest), 1)
        current = after


def test_pods_go_five_minutes_after_the_load_went() -> None:
    autoscaler, current, seen = Autoscaler(scaling()), 10, []
    for look in range(30):
        now = look * SYNC_S
        current = autoscaler.desired(now, current, {"m": [1.0 if now < 60 else 0.2] * current})
        seen.append((now, current))
    # The last high recommendation was at 45 s, and counts for 300 s.
    assert [pods for at, pods in seen if at < 345] == [10] * 23
    assert seen[23] == (345, 2)


@pytest.mark.parametrize(
    ("busy", "queue", "wanted"),
    [
        ([0.5] * 4, [30.0] * 4, 8),
        ([1.5] * 4, [0.0] * 4, 6),
        # While one metric has no value, pods may come but not go.
        ([1.5] * 4, [], 6),
        ([0.5] * 4, [], 4),
        ([0.5] * 4, [5.0] * 4, 2),
        ([], [], 4),
    ],
)
def test_the_metric_that_asks_for_most_decides(busy: list[float], queue: list[float], wanted: int) -> None:
    targets = (MetricTarget(metric="busy", mean=1), MetricTarget(metric="queue", mean=10))
    now_down = SCALE_DOWN.model_copy(update={"stabilization_s": 0})
    autoscaler = Autoscaler(Scaling(min_replicas=1, max_replicas=8, targets=targets, down=now_down))
    assert autoscaler.desired(0, 4, {"busy": busy, "queue": queue}) == wanted


def test_a_disabled_direction_stays() -> None:
    off = SCALE_DOWN.model_copy(update={"select": "Disabled", "stabilization_s": 0})
    assert Autoscaler(scaling(down=off)).desired(0, 10, {"m": [0.0] * 10}) == 10


@pytest.mark.parametrize(
    ("policy", "start", "most", "fewest"),
    [
        (Policy(kind="Pods", value=4, period_s=15), 10, 14, 6),
        (Policy(kind="Percent", value=10, period_s=15), 11, 13, 9),
        (Policy(kind="Percent", value=100, period_s=15), 3, 6, 0),
    ],
)
def test_percentages_add_at_least_one_pod_and_round_down_what_stays(
    policy: Policy, start: int, most: int, fewest: int
) -> None:
    assert (policy.bound(start, 1), policy.bound(start, -1)) == (most, fewest)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="min_replicas 3 is above max_replicas 2"):
        scaling(3, 2)
    with pytest.raises(ValueError):
        scaling(target=math.nan)
    with pytest.raises(InputError, match="-1 pods"):
        Autoscaler(scaling()).desired(0, -1, {})
