"""The waiting room chooses the batches that its shape allows, oldest first, and starves nobody."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.scheduling.batch import BatchShape
from service.scheduling.queue import QueueLimits, WaitingRoom

LOOSE = BatchShape(token_budget=1000, padding_bound=1.0, max_items=100)


def room_of(lengths: Sequence[int]) -> WaitingRoom[int]:
    """A room whose entries are numbered in order of arrival."""
    room: WaitingRoom[int] = WaitingRoom()
    for entry, length in enumerate(lengths):
        room.add(entry, length)
    return room


@pytest.mark.parametrize(
    ("lengths", "shape", "batches"),
    [
        pytest.param([50, 10, 49, 11, 51], BatchShape(200, 0.1, 9), [[0, 2, 4], [1, 3]], id="by length, oldest first"),
        pytest.param([10, 14, 12, 7, 9], BatchShape(999, 1, 9), [[0, 4, 2, 3, 1]], id="nearest first on both sides"),
        pytest.param([10, 11, 9], BatchShape(999, 1, 2), [[0, 2], [1]], id="of equally near the shorter"),
        pytest.param([5, 4, 6, 4, 5, 6], BatchShape(999, 1, 9), [[0, 4, 1, 3, 2, 5]], id="of equal lengths the older"),
        pytest.param([8, 8, 8, 8, 8], BatchShape(24, 1, 9), [[0, 1, 2], [3, 4]], id="up to the budget, inclusive"),
        pytest.param([8, 8, 9], BatchShape(26, 1, 9), [[0, 1], [2]], id="the budget counts padding"),
        pytest.param([100, 70, 70], BatchShape(999, 0.15, 9), [[0, 1], [2]], id="up to the bound, inclusive"),
        pytest.param([100, 69], BatchShape(999, 0.15, 9), [[0], [1]], id="over the bound"),
        pytest.param([3, 3, 3, 3, 3], BatchShape(999, 1, 2), [[0, 1], [2, 3], [4]], id="max_items"),
        pytest.param([50, 50, 4], BatchShape(40, 1, 9), [[0], [1], [2]], id="over the budget, but alone"),
        pytest.param(
            [100, 110, 85, 120, 120, 120, 120],
            BatchShape(999, 0.1, 9),
            [[0, 1, 3, 4, 5, 2, 6]],
            id="too short at first, fits after longer ones have joined",
        ),
    ],
)
def test_exact_batches(lengths: list[int], shape: BatchShape, batches: list[list[int]]) -> None:
    room = room_of(lengths)
    assert [room.take(shape) for _ in batches] == batches
    assert not room


@pytest.mark.parametrize(
    ("lengths", "slots", "first"),
    [([10] * 8, 2, 4), ([10] * 8, 4, 2), ([10] * 5, 2, 2), ([10] * 3, 4, 1), ([100, 10, 10], 2, 1), ([10] * 8, 1, 8)],
)
def test_a_batch_leaves_the_other_idle_slots_their_share(lengths: list[int], slots: int, first: int) -> None:
    room = room_of(lengths)
    assert len(room.take(LOOSE, slots)) == first
    for others in range(slots - 1, 0, -1):
        if room:
            room.take(LOOSE, others)
    assert not room, "together the idle slots take all that fits them"


shapes = st.builds(
    BatchShape,
    token_budget=st.integers(1, 400),
    padding_bound=st.sampled_from([0.0, 0.05, 0.15, 0.5, 1.0]),
    max_items=st.integers(1, 12),
)
lengths_lists = st.lists(st.one_of(st.integers(1, 60), st.integers(28, 34)), min_size=1, max_size=40)


@settings(deadline=None)
@given(lengths_lists, shapes, st.data())
def test_every_batch_keeps_the_bounds_and_leaves_out_nothing_that_fits(
    lengths: list[int], shape: BatchShape, data: st.DataObject
) -> None:
    room = room_of(lengths)
    left = dict(enumerate(lengths))
    while left:
        for entry in data.draw(st.sets(st.sampled_from(sorted(left)), max_size=2)):
            room.discard(entry)
            room.discard(entry)
            del left[entry]
        assert (len(room), room.tokens, list(room)) == (len(left), sum(left.values()), list(left))
        if not left:
            break
        oldest = min(left)
        batch = room.take(shape)
        taken = {entry: left.pop(entry) for entry in batch}  # KeyError if served twice

        assert batch[0] == oldest
        total, longest = sum(taken.values()), max(taken.values())
        assert len(batch) <= shape.max_items
        assert len(batch) == 1 or len(batch) * longest <= shape.token_budget
        assert len(batch) == 1 or 1 - total / (len(batch) * longest) <= shape.padding_bound + 1e-9

        anchor = taken[oldest]
        for entry, length in left.items():
            assert not shape.fits(len(batch) + 1, total + length, max(longest, length))
            for other, other_length in taken.items():
                nearer = min(anchor, other_length) < length < max(anchor, other_length)
                assert not nearer, "a taken entry is farther than one left on its side"
                assert not (length == other_length and entry < other), "of equal lengths a younger was taken"
    assert not room
    assert room.tokens == 0


@settings(deadline=None)
@given(lengths_lists, lengths_lists, shapes, st.integers(1, 3))
def test_nothing_starves_however_well_the_newcomers_fit(
    lengths: list[int], newcomers: list[int], shape: BatchShape, slots: int
) -> None:
    """An entry waits for at most one batch per entry that was there before it."""
    room = room_of(lengths)
    left = set(range(len(lengths)))
    number = len(lengths)
    for turn in range(len(lengths)):
        for length in newcomers:
            room.add(number, length)
            number += 1
        left.difference_update(room.take(shape, slots))
        assert not left or min(left) > turn
    assert not left


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0)])
def test_queue_limits_are_checked(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        QueueLimits(*wrong)
