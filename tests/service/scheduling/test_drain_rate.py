"""The drain rate: what is measured of finished batches, and what clients are told."""

import math

import pytest

from service.scheduling.drain_rate import MEMORY_S, DrainRate


def test_it_is_of_all_slots() -> None:
    rate = DrainRate(slots=2)
    assert (rate.seconds(10**9), rate.retry_after_s(10**9)) == (0.0, 1.0), "nothing measured yet"
    rate.record(tokens=100, slot_seconds=2.0)
    assert rate.seconds(1000) == pytest.approx(1000 / (2 * 50))


def test_what_was_measured_counts_for_seconds_however_many_batches_that_were() -> None:
    few, many = DrainRate(slots=2), DrainRate(slots=2)
    for rate, batches in ((few, 1), (many, 100)):
        rate.record(tokens=100, slot_seconds=2.0)
        for _ in range(batches):
            rate.record(tokens=400 // batches, slot_seconds=4.0 / batches)
    kept = math.exp(-4.0 / (2 * MEMORY_S))
    assert few.seconds(1000) == pytest.approx(1000 * (4 + 2 * kept) / ((400 + 100 * kept) * 2))
    assert many.seconds(1000) == pytest.approx(few.seconds(1000), rel=0.1)


def test_clients_wait_at_least_a_second_and_at_most_a_minute() -> None:
    rate = DrainRate(slots=1)
    rate.record(tokens=100, slot_seconds=1.0)
    assert rate.retry_after_s(1) == 1.0
    assert rate.retry_after_s(700) == pytest.approx(7.0)
    assert rate.retry_after_s(10**9) == 60.0
