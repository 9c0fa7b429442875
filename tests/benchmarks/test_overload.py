"""Overload: its arithmetic on loads made here, and a few seconds of it on the tiny Bento."""

import math

import numpy as np
import pytest

from benchmarks.overload import fitted_queue, run
from benchmarks.overload_report import (
    Disconnects,
    Memory,
    Overload,
    Saturation,
    drained_after_s,
    failed,
    kept_share,
    retry_honesty,
    table_of,
    useful_per_s,
)
from bentune.bundle.errors import InputError
from rollout.load.generator import Load
from rollout.load.latency import Latency


def load_of(*requests: tuple[float, float, int, float], seconds: float = 10.0) -> Load:
    """Return a load of requests of (started, latency, status, Retry-After)."""
    started, latency, status, retry = (np.array(column) for column in zip(*requests, strict=True))
    return Load(
        started_s=started,
        latency_s=latency,
        status=status,
        inputs=np.ones(len(status), np.int64),
        group=np.array([""] * len(status)),
        retry_after_s=retry,
        lag_s=np.zeros(len(status)),
        seconds=seconds,
        answered=0,
        answered_inputs=0,
        cpu_s=0.0,
    )


NAN = math.nan


def test_useful_is_what_came_in_time_and_within_the_window() -> None:
    load = load_of((0, 1, 200, NAN), (1, 3, 200, NAN), (9, 1.5, 200, NAN), (2, 0.1, 429, 1))
    assert useful_per_s(load, deadline_s=2) == pytest.approx(0.1)
    assert kept_share(load, deadline_s=2) == pytest.approx(2 / 3)


def test_a_504_and_no_answer_are_failures_and_a_refusal_is_none() -> None:
    load = load_of((0, 1, 504, NAN), (0, 1, 0, NAN), (0, 1, 500, NAN), (0, 1, 429, 1), (0, 1, 200, NAN))
    assert failed(load) == 3
    assert kept_share(load, deadline_s=2) == pytest.approx(1 / 4)


def test_nothing_was_kept_or_broken_where_all_were_refused() -> None:
    load = load_of((0, 0.1, 429, 1))
    assert kept_share(load, deadline_s=2) is None
    assert retry_honesty(load) is None


def test_retry_after_is_judged_by_the_last_answer_to_whoever_was_accepted_before() -> None:
    load = load_of((0, 5, 200, NAN), (1, 7, 200, NAN), (2, 1, 429, 6), (3, 9, 200, NAN))
    advertised, true_s = drained_after_s(load)
    assert advertised.tolist() == [6]
    assert true_s.tolist() == [5]  # answered at 3; the queue of then was done at 8


@pytest.mark.parametrize(("advertised", "right"), [(2, 0.0), (3, 1.0), (10, 1.0), (11, 0.0)])
def test_retry_after_may_be_wrong_by_a_factor_of_two(advertised: int, right: float) -> None:
    honesty = retry_honesty(load_of((0, 5, 200, NAN), (0, 0, 429, advertised)))
    assert honesty is not None
    assert honesty.right_share == right


def test_a_queue_that_drains_within_a_second_cannot_be_judged() -> None:
    assert retry_honesty(load_of((0, 0.9, 200, NAN), (0, 0, 429, 1))) is None


def test_the_queue_holds_half_of_what_is_computed_within_the_deadline() -> None:
    assert fitted_queue(1000, deadline_s=4, least=100) == 2000
    with pytest.raises(InputError, match="--deadline-ms"):
        fitted_queue(1000, deadline_s=4, least=2001)


def test_the_cores_that_the_generator_took_are_not_held_against_the_service() -> None:
    result = overload(useful_per_s=75.0, generator=0.5)
    assert result.useful_share == 0.75
    assert result.useful_share_of_cores_left == 1.0


def test_each_broken_promise_is_named() -> None:
    result = overload(useful_per_s=75.0, generator=0.5)
    assert [check.name for check in result.checks if not check.held] == [
        "useful throughput / capacity",
        "Retry-After within a factor of 2",  # not one could be judged
        "memory at most / once the queue was full",
    ]
    assert table_of(result).row_count > len(result.checks)


def test_overloads_the_tiny_bento(tiny_tag: str) -> None:
    result = run(
        tiny_tag, seconds=2, multiple=2, deadline_ms=2000, fit_queue=False, leavers=5, step_s=1, recovery_s=2.5
    )
    assert result.capacity_per_s > 10
    assert result.useful_per_s > 0
    assert result.memory.before_mb > 50
    assert result.disconnects.leavers == 5
    assert Overload.model_validate_json(result.model_dump_json(exclude_computed_fields=True)) == result


def overload(useful_per_s: float, generator: float) -> Overload:
    return Overload(
        tag="a:1",
        cores=2,
        multiple=3,
        seconds=60,
        deadline_ms=1000,
        queue_tokens=None,
        capacity_per_s=100,
        useful_per_s=useful_per_s,
        kept_share=1.0,
        failed=0,
        statuses={"200": 10},
        latency_ms=Latency(p50=1, p90=1, p99=1, p99_9=1, max=1, answers=10),
        retry_after=None,
        memory=Memory(before_mb=100, once_full_mb=102, peak_mb=120, after_mb=104),
        normal_p50_ms=10,
        recovered_p50_ms=11,
        disconnects=Disconnects(leavers=5, counted=5, computed_for_nobody=0),
        at_capacity=Saturation(generator=0, event_loop=0, worker=2, others=0),
        overloaded=Saturation(generator=generator, event_loop=0.2, worker=1.5, others=0),
        generator_lag_p99_ms=1,
    )
