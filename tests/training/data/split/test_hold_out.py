"""Holding out: groups stay whole, the newest go, and shares are kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.errors import InputError
from training.data.reading.pool import Pool, PoolRows
from training.data.split.hold_out import hold_out, newest, some_groups
from training.recipe.data import DataSettings, SplitSettings
from training.tasks.targets.one_label import OneLabelTraining

Rows = Sequence[tuple[int, int]]


def part_of(
    labels: Sequence[int], groups: Sequence[int] | None = None, times: Sequence[float] | None = None
) -> PoolRows:
    count = len(labels)
    pool = Pool(
        file=Path("none"),
        target=OneLabelTraining(DataSettings(source="s")),
        labels=[f"label {number}" for number in range(max(labels) + 1)],
        keys=np.zeros((count, 2), dtype=np.uint64),
        text_keys=np.zeros((count, 2), dtype=np.uint64),
        label_ids=np.array(labels, dtype=np.int32),
        sources=np.zeros(count, dtype=np.int8),
        characters=np.ones(count, dtype=np.uint32),
        words=np.ones(count, dtype=np.uint32),
        groups=None if groups is None else np.array(groups, dtype=np.uint64),
        times=None if times is None else np.array(times, dtype=np.float64),
    )
    return PoolRows(pool, np.arange(count))


@examples(200)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=60),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_group_is_on_two_sides_and_neither_is_empty(rows: list[tuple[int, int]], share: float, seed: int) -> None:
    labels, groups = zip(*rows, strict=True)
    part = part_of(labels, groups)
    settings_ = SplitSettings(test=0.2, group="customer")
    if len(set(groups)) < 2:
        with pytest.raises(InputError, match="here: all .* rows have the same 'customer'"):
            hold_out(part, share, settings_, seed, "here")
        return
    stays, out = hold_out(part, share, settings_, seed, "here")
    assert not set(stays.groups) & set(out.groups)
    assert len(stays)
    assert len(out)
    assert sorted([*stays.rows, *out.rows]) == list(range(len(rows)))


def test_groups_are_drawn_so_that_each_label_has_its_share() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 800, 20_000) ** 2 // 300  # from a few rows to hundreds
    labels = np.where(generator.random(20_000) < 0.02, 2, groups % 2)
    for share in (0.1, 0.2, 0.35):
        chosen = some_groups(part_of(labels.tolist(), groups.tolist()), share, seed=1)
        for label in range(3):
            assert chosen[labels == label].mean() == pytest.approx(share, abs=0.03)


def test_the_seed_draws_the_groups() -> None:
    part = part_of([0, 1] * 100, [number // 4 for number in range(200)])
    drawn = [some_groups(part, 0.2, seed).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_of_two_large_groups_the_smaller_is_held_out() -> None:
    part = part_of([0] * 10, [1] * 6 + [2] * 4)
    assert hold_out(part, 0.2, SplitSettings(group="customer"), 0, "here")[1].rows.tolist() == [6, 7, 8, 9]


@examples(100)
@given(times=st.lists(st.integers(0, 20), min_size=1, max_size=40), share=st.floats(0.05, 0.9))
def test_no_row_that_stays_is_newer_than_one_held_out(times: list[int], share: float) -> None:
    chosen = newest(part_of([0] * len(times), times=[float(time) for time in times]), share)
    assert chosen.sum() == round(len(times) * share)
    values = np.array(times)
    if chosen.any() and not chosen.all():
        assert values[~chosen].max() <= values[chosen].min()


def test_one_time_is_no_order() -> None:
    with pytest.raises(InputError, match="here: all 10 rows have the same 'created_at', so none is newer"):
        hold_out(part_of([0] * 10, times=[5.0] * 10), 0.2, SplitSettings(time="created_at"), 0, "here")
    with pytest.raises(InputError, match="here: 3 rows cannot be split at 0.1: one side would be empty"):
        hold_out(part_of([0] * 3, times=[1.0, 2.0, 3.0]), 0.1, SplitSettings(time="created_at"), 0, "here")
