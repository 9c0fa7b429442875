"""Times to split by: what is read as one, and what is not."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.reading.reading import parse_time, time_text


def test_dates_and_numbers() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    seconds = noon.timestamp()
    for value in (
        "2026-01-31T12:00:00Z",
        " 2026-01-31 12:00 ",
        "2026-01-31T13:00+01:00",
        noon,
        noon.replace(tzinfo=None),
        noon.astimezone(timezone(timedelta(hours=3))),
    ):
        assert parse_time(value) == ("date", seconds)
    assert parse_time("2026-01-31") == parse_time(date(2026, 1, 31)) == ("date", seconds - 12 * 3600)
    assert [parse_time(value) for value in (2026, 2026.5, "2026", " -3.5 ")] == [
        ("number", number) for number in (2026.0, 2026.5, 2026.0, -3.5)
    ]
    assert (time_text("date", seconds), time_text("number", 2026.0)) == ("2026-01-31T12:00:00+00:00", "2026")


@pytest.mark.parametrize("value", [None, "", "yesterday", "03/04/2024", True, [1], float("nan"), float("inf"), 10**400])
def test_what_is_no_time(value: object) -> None:
    with pytest.raises(ValueError):
        parse_time(value)


@given(st.datetimes(), st.datetimes())
def test_later_is_larger(one: datetime, other: datetime) -> None:
    assert (parse_time(one.isoformat())[1] < parse_time(other.isoformat())[1]) == (one < other)
