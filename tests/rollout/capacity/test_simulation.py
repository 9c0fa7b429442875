"""The simulation says what queueing theory says, and what playing every single request says."""

import heapq
import math
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured import CEILING, capacity, knee_of
from properties import examples

from rollout.capacity.autoscaler import SYNC_S, Autoscaler, MetricTarget, Scaling
from rollout.capacity.fleet import BUSY, QUEUE, Habits
from rollout.capacity.pod_model import PodModel
from rollout.capacity.simulation import simulate
from rollout.capacity.traffic import BUILT_IN, Traffic, built_in
from rollout.load.slo import parse_objective

P99 = parse_objective("p99=200ms")
POD = PodModel.of(capacity())
KNEE = knee_of(P99)
HABITS = Habits(startup_s=30, window_s=60, room=500, linger_s=5, grace_s=65)


def scaling(least: int, most: int) -> Scaling:
    targets = (MetricTarget(metric=BUSY, mean=0.8 * POD.busy), MetricTarget(metric=QUEUE, mean=0.8 * 0.2 * KNEE))
    return Scaling(min_replicas=least, max_replicas=most, targets=targets)


def steady(rate: float, seconds: float = 600) -> Traffic:
    return Traffic("steady", np.array([0, seconds]), np.array([rate, rate]))


@pytest.mark.parametrize("rate", [30.0, 60.0, 75.0, KNEE, 90.0])
def test_a_steady_rate_is_slow_as_often_as_theory_says(rate: float) -> None:
    """The share of slow requests is that of one server with random service times.

    exp(-(ceiling - rate) x limit) of the requests take longer than the limit.
    """
    outcome, series = simulate(POD, scaling(3, 3), steady(3 * rate), P99, HABITS)
    slow = math.exp(-(CEILING - rate) * 0.2)
    assert outcome.too_slow / outcome.arrivals == pytest.approx(slow, rel=1e-3)
    assert series.latency_ms[-1] == pytest.approx(-math.log(0.01) / (CEILING - rate) * 1000)
    assert outcome.held is (rate < 80)
    assert outcome.violated_s == (0 if rate < 80 else 600)
    assert outcome.replica_hours == pytest.approx(0.5)
    assert (outcome.refused, outcome.waiting, outcome.changes) == (0, 0, 0)


def test_above_the_ceiling_the_rest_is_refused() -> None:
    outcome, series = simulate(POD, scaling(2, 2), steady(300, 100), P99, HABITS)
    # 100 a second are too many. The first thousand of them may wait: 500 at each pod, for 5 s.
    assert outcome.served == 2 * CEILING * 100
    assert outcome.waiting == 1000
    assert outcome.refused == 100 * 100 - 1000
    assert outcome.violated_s == 100
    # And what a request takes alone, at the lowest rate that was tried: here 48 ms.
    assert series.latency_ms[-1] == pytest.approx(5000 + 48, rel=0.01)


@examples(40)
@given(
    points=st.lists(st.tuples(st.floats(1, 300), st.floats(0, 2000)), min_size=2, max_size=8),
    least=st.integers(1, 5),
    more=st.integers(0, 20),
    startup_s=st.floats(0, 90),
)
def test_what_comes_is_served_refused_or_waiting_and_pods_cost_while_they_are_there(
    points: list[tuple[float, float]], least: int, more: int, startup_s: float
) -> None:
    seconds = np.cumsum([0, *(wait for wait, _ in points[1:])])
    traffic = Traffic("any", seconds, np.array([rate for _, rate in points]))
    # Without a wait before the end of a pod, all that is there is what was asked for, and what still drains.
    habits = Habits(startup_s=startup_s, window_s=60, room=500, linger_s=0, grace_s=65)
    outcome, series = simulate(POD, scaling(least, least + more), traffic, P99, habits)
    assert outcome.served + outcome.refused + outcome.waiting == pytest.approx(outcome.arrivals)
    assert outcome.arrivals == pytest.approx(float(series.rate.sum()))
    asked = float(series.wanted.sum()) / 3600
    assert asked - 1e-9 <= outcome.replica_hours <= asked + 65 * outcome.changes * (least + more) / 3600 + 1e-9
    assert (series.wanted >= least).all()
    assert (series.wanted <= least + more).all()
    assert (series.ready <= series.wanted).all()
    assert outcome.most_replicas == series.wanted.max()
    assert outcome.violated_s <= outcome.seconds


@dataclass
class _Pod:
    """One server that takes requests in turn; `free` is when it will have served all that it has."""

    since: float
    free: float = 0.0
    seen: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=4))


def played(traffic: Traffic, rules: Scaling, replicas: int, seed: int) -> tuple[float, float, float, float]:
    """Every request on its own: random arrivals, a random pod, random service times.

    Returns the shares of requests that were refused and that were slow, the seconds in which over 1 % were either, and
    the replica-hours.
    """
    random = np.random.default_rng(seed)
    counts = random.poisson(traffic.steps(1.0))
    autoscaler, wanted = Autoscaler(rules), replicas
    pods = [_Pod(0.0) for _ in range(replicas)]
    starting: list[float] = []
    refused = slow = pod_s = violated = 0.0
    for second, count in enumerate(counts.tolist()):
        now = float(second)
        while starting and starting[0] <= now:
            pods.append(_Pod(heapq.heappop(starting)))
        if second and second % HABITS.scrape_s == 0:
            for pod in pods:
                if now > pod.since:
                    pod.seen.append((float(pod.free > now), max(pod.free - now, 0.0) * CEILING))
        if second and second % SYNC_S == 0:
            heard = [np.mean(pod.seen, axis=0) for pod in pods if pod.seen]
            values = {BUSY: [float(each[0]) for each in heard], QUEUE: [float(each[1]) for each in heard]}
            wanted = autoscaler.desired(now, wanted, values, missing=len(pods) - len(heard) + len(starting))
            for _ in range(wanted - len(pods) - len(starting)):
                heapq.heappush(starting, now + HABITS.startup_s)
            while len(pods) + len(starting) > wanted:
                if starting:
                    starting.remove(max(starting))
                else:
                    gone = pods.pop()
                    pod_s += max(HABITS.linger_s, gone.free - now)
        pod_s += len(pods) + len(starting)
        missed = 0
        arrivals = (now + np.sort(random.random(count))).tolist()
        chosen = random.integers(0, len(pods), count).tolist()
        for at, index, service in zip(arrivals, chosen, random.exponential(1 / CEILING, count).tolist(), strict=True):
            pod = pods[index]
            if (pod.free - at) * CEILING > HABITS.room:
                refused += 1
                missed += 1
                continue
            pod.free = max(pod.free, at) + service
            if pod.free - at > P99.limit_ms / 1000:
                slow += 1
                missed += 1
        violated += missed > 0.01 * count
    total = int(counts.sum())
    return refused / total, slow / total, violated, pod_s / 3600


@pytest.mark.parametrize(("peak", "least", "most", "runs"), [(450.0, 2, 9, 16), (1600.0, 6, 32, 6)])
def test_it_agrees_with_playing_every_request(peak: float, least: int, most: int, runs: int) -> None:
    """Millions of requests meet too few pods at the start.

    Therefore much goes wrong before the autoscaler is done. Means over some runs: few looks at few pods let the
    autoscaler act a quarter of a minute sooner or later. Pods that stand for some time just at their ceiling are the
    worst of cases: the flow is as slow at once as it would become.
    """
    traffic, rules = built_in("step", peak), scaling(least, most)
    flows = [simulate(POD, rules, traffic, P99, HABITS, seed=seed)[0] for seed in range(2 * runs)]
    shares = [(each.refused / each.arrivals, each.too_slow / each.arrivals) for each in flows]
    truth = np.mean([played(traffic, rules, flows[0].fewest_replicas, seed) for seed in range(runs)], axis=0)
    refused, slow, violated, hours = truth.tolist()
    assert np.mean([share for share, _ in shares]) == pytest.approx(refused, rel=0.1, abs=0.003)
    assert np.mean([share for _, share in shares]) == pytest.approx(slow, rel=0.1)
    assert np.mean([each.violated_s for each in flows]) == pytest.approx(violated, rel=0.1)
    assert np.mean([each.replica_hours for each in flows]) == pytest.approx(hours, rel=0.04)


def test_ten_thousand_a_second_for_a_day_take_seconds() -> None:
    started = time.perf_counter()
    outcome, _ = simulate(POD, scaling(2, 400), built_in("daily", 10_000), P99, HABITS)
    assert time.perf_counter() - started < 20
    assert outcome.arrivals == pytest.approx(10_000 * 0.6 * 86_400, rel=1e-3)
    # 162 pods of 61.6 requests/s at the peak.
    assert outcome.most_replicas == pytest.approx(10_000 / (0.8 * KNEE), rel=0.15)
    assert outcome.held


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_large_fleet_costs_less_than_so_many_small_ones(name: str) -> None:
    """The mean of few looks at few pods is rough.

    The highest of the rough means within five minutes counts.
    """
    small, large = (
        simulate(POD, scaling(5 * factor, 20 * factor), built_in(name, 1000.0 * factor), P99, HABITS)[0]
        for factor in (1, 20)
    )
    assert 0.8 <= large.replica_hours / 20 / small.replica_hours <= 1.01
    assert large.violated_s == pytest.approx(small.violated_s, abs=30)


def test_the_same_seed_gives_the_same_answer() -> None:
    first, second = (simulate(POD, scaling(2, 9), built_in("ramp", 400), P99, HABITS)[0] for _ in range(2))
    assert first == second
