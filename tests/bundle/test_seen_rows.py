"""The filter has every row that was put in, and hardly another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bentune.bundle.seen_rows import FALSE_POSITIVE_RATE, RowFilter, row_key


def keys(first: int, last: int) -> list[bytes]:
    return [row_key(f"row {number}") for number in range(first, last)]


@given(st.sets(st.text(), max_size=50))
def test_what_was_put_in_is_there_after_it_was_written_and_read(texts: set[str]) -> None:
    put = [row_key(text) for text in texts]
    read = RowFilter.model_validate_json(RowFilter.of(put).model_dump_json())
    assert read.has(put).all()
    assert (read.rows, read.has([]).tolist()) == (len(put), [])


@pytest.mark.parametrize("rows", [0, 1, 10, 1000, 20_000])
def test_others_are_hardly_ever_there_and_a_row_costs_four_bytes(rows: int) -> None:
    one = RowFilter.of(keys(0, rows))
    assert one.false_positive_rate <= 1.05 * FALSE_POSITIVE_RATE
    assert len(one.bits) <= 4 * rows + 8
    # Ten expected of ten million would be; of 200,000 more than 3 have a probability of 6e-5.
    assert one.has(keys(rows, rows + 200_000)).sum() <= 3


def test_the_stated_rate_is_the_measured_one() -> None:
    """The filter is too full for any bundle: its rate is large enough to be counted."""
    good = RowFilter.of(keys(0, 1000))
    full = good.model_copy(update={"rows": 4000, "bits": good.bits})
    bits = np.unpackbits(np.frombuffer(good.bits, np.uint8))
    for part in range(3):
        more = RowFilter.of(keys(1000 * (part + 1), 1000 * (part + 2)))
        bits |= np.unpackbits(np.frombuffer(more.bits, np.uint8))
    full = full.model_copy(update={"bits": np.packbits(bits).tobytes()})
    assert full.has(keys(10_000, 30_000)).mean() == pytest.approx(full.false_positive_rate, rel=0.1)


def test_case_and_spacing_make_no_other_row_and_the_second_text_does() -> None:
    assert row_key("A  dog\n") == row_key("a dog") == row_key("a dog", None)
    assert len({row_key("a dog"), row_key("a", "dog"), row_key("", "a dog"), row_key("a dog", "x")}) == 4


@pytest.mark.parametrize("wrong", [{"rows": 4000}, {"rows": 10**400}, {"hashes": 0}, {"bits": ""}, {"bits": "=!"}])
def test_a_filter_that_would_say_yes_too_often_is_refused(wrong: dict[str, object]) -> None:
    good = RowFilter.of(keys(0, 1000)).model_dump(mode="json")
    with pytest.raises(ValidationError):
        RowFilter.model_validate(good | wrong)
