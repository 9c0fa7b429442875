"""The model of a pod gives back what was measured, and between that what queueing theory says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured import CEILING, capacity, knee_of, latency_ms, trial

from bentune.bundle.errors import InputError
from rollout.capacity.pod_model import PodModel, threads_of
from rollout.load.slo import parse_objective

POD = PodModel.of(capacity())
P99 = parse_objective("p99=200ms")


def one(rate: float, percent: float) -> float:
    return float(POD.latency_ms(np.array([rate]), percent)[0])


@pytest.mark.parametrize("percent", [50, 90, 99, 99.9])
def test_at_a_tried_rate_it_is_what_was_measured(percent: float) -> None:
    for rate in (5.0, 50.0, 75.0, knee_of(P99), 95.0):
        assert one(rate, percent) == pytest.approx(latency_ms(rate, percent))


@given(rate=st.floats(5, 90), limit_ms=st.floats(1, 2000))
def test_between_them_it_is_near_the_truth(rate: float, limit_ms: float) -> None:
    """Exponential latencies are straight lines on the axis of nines.

    Therefore only the rate is interpolated.
    """
    share = float(POD.share_over(np.array([rate]), np.array([limit_ms]))[0])
    assert share == pytest.approx(math.exp(-(CEILING - rate) * limit_ms / 1000), abs=0.08)


@given(rate=st.floats(0, 200), percent=st.sampled_from([50.0, 90.0, 95.0, 99.0, 99.9, 99.99]))
def test_a_percentile_is_the_latency_that_so_many_exceed(rate: float, percent: float) -> None:
    limit = POD.latency_ms(np.array([rate]), percent)
    assert POD.share_over(np.array([rate]), limit)[0] == pytest.approx(1 - percent / 100)


@given(rates=st.lists(st.floats(0, 200), min_size=2, max_size=2), limits=st.lists(st.floats(-10, 1e5), min_size=2))
def test_more_load_is_never_faster_and_a_longer_limit_never_missed_more(
    rates: list[float], limits: list[float]
) -> None:
    low, high = sorted(rates)
    assert one(low, 99) <= one(high, 99)
    ordered = np.sort(np.array(limits))
    shares = POD.share_over(np.full(len(limits), low), ordered)
    assert (np.diff(shares) <= 1e-12).all()
    assert (shares[ordered < 0] == 1).all()


def test_busy_slots_grow_to_all_of_them() -> None:
    pod = PodModel.of(capacity(slots=2).model_copy(update={"ceiling_requests_per_s": 200.0}))
    knee = knee_of(P99)
    assert pod.busy_slots(0) == 0
    assert pod.busy_slots(knee) == pytest.approx(2 * knee / 100)
    assert pod.busy_slots((knee + 200) / 2) == pytest.approx((2 * knee / 100 + 2) / 2)
    assert pod.busy_slots(500) == 2


def test_a_disturbed_trial_below_the_knee_does_not_count_and_one_above_does() -> None:
    measured = capacity()
    slow = trial(95.0, P99)
    pod = PodModel.of(
        measured.model_copy(update={"trials": [slow.model_copy(update={"rate": 40.0}), *measured.trials]})
    )
    assert float(pod.latency_ms(np.array([40.0]), 99)[0]) == pytest.approx(latency_ms(40, 99))
    assert float(pod.latency_ms(np.array([95.0]), 99)[0]) == pytest.approx(latency_ms(95, 99))


def test_a_latency_that_falls_with_the_rate_is_noise() -> None:
    measured = capacity()
    noisy = trial(60.0, P99).model_copy(update={"rate": 20.0})
    quick = [each for each in measured.trials if each.rate != 20.0]
    pod = PodModel.of(measured.model_copy(update={"trials": [noisy, *quick]}))
    assert float(pod.latency_ms(np.array([50.0]), 99)[0]) == pytest.approx(latency_ms(60, 99))


def test_a_ceiling_below_the_knee_is_noise() -> None:
    assert PodModel.of(capacity().model_copy(update={"ceiling_requests_per_s": 10.0})).ceiling == knee_of(P99)


@pytest.mark.parametrize("update", [{"signal": None}, {"model": None}, {"model": {"plan": {"slots": 0}}}])
def test_without_a_signal_there_is_nothing_to_scale_by(update: dict[str, object]) -> None:
    with pytest.raises(InputError, match="one-server:1: capacity.json has no signal"):
        PodModel.of(capacity().model_copy(update=update))


def test_without_a_trial_there_is_no_model() -> None:
    with pytest.raises(InputError, match="no trial that was answered"):
        PodModel.of(capacity().model_copy(update={"trials": []}))


def test_threads() -> None:
    assert threads_of(capacity()) == 2
    assert threads_of(capacity().model_copy(update={"model": None})) is None
