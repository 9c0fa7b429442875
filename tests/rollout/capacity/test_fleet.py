"""Pods come and go as in a cluster, and no request is lost or counted twice on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured import capacity

from rollout.capacity.fleet import BUSY, QUEUE, Fleet, Habits
from rollout.capacity.pod_model import PodModel

POD = PodModel.of(capacity(slots=2))
HABITS = Habits(startup_s=30, window_s=60, room=500, linger_s=5, grace_s=65)


def fleet(replicas: int, habits: Habits = HABITS) -> Fleet:
    return Fleet(POD, habits, replicas, step_s=1.0)


def test_a_pod_serves_after_its_start_up() -> None:
    pods = fleet(1)
    pods.scale_to(3, now=0)
    for step in range(30):
        pods.advance(step, step, 0)
        assert (pods.ready, pods.starting) == (1, 2)
    pods.advance(30, 30, 0)
    assert (pods.ready, pods.starting) == (3, 0)
    assert pods.replica_s == 31 * 3


def test_below_the_ceiling_nothing_waits_and_above_it_what_is_not_served() -> None:
    pods = fleet(2)
    pods.advance(0, 0, 200)
    assert (pods.served, pods.waiting, pods.flow.wait_s) == (200, 0, [0])
    pods.advance(1, 1, 300)
    assert (pods.served, pods.waiting, pods.refused) == (400, 100, 0)
    # Each has 50 more than it could serve: from none to half a second of waiting.
    assert pods.flow.wait_s[1] == 0.25
    assert pods.flow.rate[1] == 150


def test_what_finds_no_room_is_refused() -> None:
    pods = fleet(1)
    for step in range(20):
        pods.advance(step, step, 150)
    # 50 a second are too many: room for 500 of them lasts 10 s.
    assert (pods.served, pods.waiting, pods.refused) == (2000, 500, 500)
    assert pods.flow.accepted[-1] == 100


def test_the_youngest_go_first_and_finish_what_they_took() -> None:
    pods = fleet(1)
    pods.scale_to(2, now=0)
    for step in range(31):
        pods.advance(step, step, 150)
    # The older one has 500 waiting requests of its own, 25 less at the end, which the younger does not see.
    assert pods.flow.wait_s[-2:] == [4.875, 0.0]
    pods.scale_to(1, now=31)
    assert pods.ready == 1
    assert pods.waiting == 475
    pods.scale_to(3, now=31)
    pods.scale_to(2, now=32)
    assert (pods.ready, pods.starting) == (1, 1)


def test_a_draining_pod_costs_until_it_is_gone() -> None:
    pods = fleet(2)
    for step in range(10):
        pods.advance(step, step, 300)
    assert pods.waiting == 2 * 500
    pods.scale_to(1, now=10)
    before = pods.replica_s
    for step in range(10, 30):
        pods.advance(step, step, 0)
    # 500 requests at 100 a second.
    assert pods.replica_s - before == 20 + 5
    assert (pods.served, pods.waiting, pods.refused) == (3000, 0, 0)


def test_an_idle_pod_that_goes_lingers_for_its_pre_stop() -> None:
    pods = fleet(2)
    pods.scale_to(1, now=0)
    for step in range(20):
        pods.advance(step, step, 0)
    assert pods.replica_s == 20 + 5


def test_a_short_grace_period_loses_requests() -> None:
    pods = fleet(2, Habits(startup_s=30, window_s=60, room=500, linger_s=1, grace_s=2))
    for step in range(10):
        pods.advance(step, step, 300)
    pods.scale_to(1, now=10)
    for step in range(10, 20):
        pods.advance(step, step, 0)
    assert (pods.served, pods.refused, pods.waiting) == (2700, 300, 0)


def test_the_metrics_are_means_of_what_was_scraped() -> None:
    pods = fleet(1000)
    assert pods.metrics() == ({BUSY: [], QUEUE: []}, 1000)
    for step in range(4):
        pods.advance(step, step, 1000 * 50)
        pods.scrape()
    values, silent = pods.metrics()
    assert silent == 0
    # Half of the ceiling: one of two slots on average, and each pod's mean is of four looks.
    assert sum(values[BUSY]) / 1000 == pytest.approx(1.0, abs=0.03)
    assert 0.3 < (sum((value - 1) ** 2 for value in values[BUSY]) / 1000) ** 0.5 < 0.4
    assert values[QUEUE] == [0.0] * 1000
    pods.scale_to(1003, now=4)
    pods.scale_to(1001, now=4)
    assert pods.metrics()[1] == 1
    for step in range(4, 40):
        pods.advance(step, step, 1001 * 150)
        pods.scrape()
    values, silent = pods.metrics()
    assert (len(values[BUSY]), silent) == (1001, 0)
    assert set(values[BUSY]) == {2.0}
    assert values[QUEUE][0] == 500


def test_cohorts_that_only_their_age_tells_apart_are_joined() -> None:
    pods = fleet(2)
    for number in range(50):
        pods.scale_to(3 + number, now=number * 100)
        for step in range(100):
            pods.advance(step, number * 100 + step, 10)
            if step % 15 == 0:
                pods.scrape()
    assert pods.ready == 52
    assert len(pods.metrics()[0][BUSY]) == 52
    pods.flow.step.clear()
    pods.advance(0, 5000, 10)
    assert len(pods.flow.step) == 2


@given(
    changes=st.lists(st.tuples(st.integers(1, 12), st.floats(0, 3000), st.integers(1, 40)), min_size=1, max_size=15),
    startup_s=st.floats(0, 60),
    grace_s=st.floats(1, 65),
)
def test_arrivals_are_served_refused_or_waiting(
    changes: list[tuple[int, float, int]], startup_s: float, grace_s: float
) -> None:
    habits = Habits(startup_s=startup_s, window_s=60, room=300, linger_s=5, grace_s=grace_s)
    pods, step, came = fleet(2, habits), 0, 0.0
    for replicas, requests, steps in changes:
        pods.scale_to(replicas, float(step))
        assert pods.ready + pods.starting == replicas
        for _ in range(steps):
            pods.advance(step, float(step), requests)
            if step % 15 == 0:
                pods.scrape()
            step, came = step + 1, came + requests
    assert pods.served + pods.refused + pods.waiting == pytest.approx(came)
    assert min(pods.flow.accepted, default=0) >= 0
    assert min(pods.flow.wait_s, default=0) >= 0
    values, silent = pods.metrics()
    assert len(values[BUSY]) == len(values[QUEUE])
    assert len(values[BUSY]) + silent == pods.ready + pods.starting
