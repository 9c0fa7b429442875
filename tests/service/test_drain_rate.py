"""The drain rate: what is measured of finished batches, and what clients are told."""

import pytest

from service.drain_rate import DrainRate


def test_it_is_of_all_slots_and_favours_the_latest_batches() -> None:
    rate = DrainRate(slots=2)
    assert (rate.seconds(10**9), rate.retry_after_s(10**9)) == (0.0, 1.0), "nothing measured yet"
    rate.record(tokens=100, slot_seconds=2.0)
    assert rate.seconds(1000) == pytest.approx(1000 / (2 * 50))
    rate.record(tokens=100, slot_seconds=4.0)
    assert rate.seconds(1000) == pytest.approx(1000 / (2 * 190 / 5.8))


def test_clients_wait_at_least_a_second_and_at_most_a_minute() -> None:
    rate = DrainRate(slots=1)
    rate.record(tokens=100, slot_seconds=1.0)
    assert rate.retry_after_s(1) == 1.0
    assert rate.retry_after_s(700) == pytest.approx(7.0)
    assert rate.retry_after_s(10**9) == 60.0
