"""The planned steps are those that the sampler draws, and the ones to measure stand for all lengths."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.dry_run.step_plan import GROUPS, padded_tokens, step_plan
from training.recipe.recipe import Recipe
from training.train.fit.arguments import total_steps
from training.train.fit.sampler import LengthSampler


def recipe(**train: Any) -> Recipe:
    values = {"name": "x", "task": "text-classification", "model": "m", "data": {"source": "s"}, "train": train}
    return Recipe.model_validate(values)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=150),
    st.sampled_from([0.4, 1.0, 2.5]),
    st.sampled_from([1, 2, 4]),
)
def test_tokens_are_those_of_the_batches_that_training_pads(lengths: list[int], epochs: float, parts: int) -> None:
    given_recipe = recipe(batch_size=8, accumulation=parts, epochs=epochs)
    plan = step_plan(given_recipe, lengths)
    sampler, steps = LengthSampler(8, lengths, given_recipe.seed), list[list[list[int]]]()
    for epoch in range(3):
        sampler.set_epoch(epoch)
        order = list(sampler)
        for start in range(0, len(order), 8):
            step = order[start : start + 8]
            steps.append([step[part : part + 8 // parts] for part in range(0, len(step), 8 // parts)])
    del steps[total_steps(given_recipe, len(lengths)) :]

    def padded(part: list[int]) -> int:
        return len(part) * max(lengths[row] for row in part)

    assert plan.tokens.tolist() == [sum(map(padded, step)) for step in steps]
    widest = [max(map(padded, step)) for step in steps]
    longest = [plan.longest[part : part + 8 // parts].tolist() for part in range(0, len(plan.longest), 8 // parts)]
    assert max(map(padded, longest)) >= max(widest)


def test_groups_are_as_large_as_each_other_and_sorted_by_their_tokens() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 1000).tolist()
    plan = step_plan(recipe(batch_size=10, epochs=2), lengths)
    assert np.bincount(plan.groups).tolist() == [40] * GROUPS
    for group in range(GROUPS - 1):
        assert plan.tokens[plan.groups == group].max() <= plan.tokens[plan.groups == group + 1].min()
    # With rows of one length only, no group is of one epoch alone.
    level = step_plan(recipe(batch_size=10, epochs=2), [50] * 1000)
    assert all((level.groups[:100] == group).sum() + 9 >= 20 for group in range(GROUPS))


def test_each_pass_has_a_whole_step_of_every_group_and_none_again_before_all() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 505).tolist()
    plan = step_plan(recipe(batch_size=10, epochs=1), lengths)
    passes = list(islice(plan.passes(seed=3), 20))
    assert [[group for group, _ in one] for one in passes] == [[*range(GROUPS)]] * 20
    steps = {tuple(plan.first[start : start + 10]): start // 10 for start in range(0, 500, 10)}
    for group in range(GROUPS):
        drawn = [steps[tuple(one[group][1])] for one in passes]
        mine = np.flatnonzero(plan.groups[:50] == group)
        assert sorted(drawn[: len(mine)]) == mine.tolist()
        assert set(drawn) == set(mine)
    again = list(islice(plan.passes(seed=3), 20))
    assert all((one[0][1] == other[0][1]).all() for one, other in zip(passes, again, strict=True))


def test_fewer_rows_than_a_step_has_are_a_step() -> None:
    plan = step_plan(recipe(batch_size=16), [3, 5, 4])
    assert plan.tokens.tolist() == [15, 15, 15]
    ((group, rows),) = next(plan.passes(seed=1))
    assert sorted(rows) == [0, 1, 2]
    assert plan.groups[0] == group
    assert sorted(plan.longest) == [0, 1, 2]


def test_padding_goes_to_the_longest_of_each_part() -> None:
    assert padded_tokens(np.array([1, 2, 3, 4, 5]), 2) == 4 + 8 + 5
    assert padded_tokens(np.array([], dtype=np.int64), 2) == 0
    assert padded_tokens(np.array([7]), 4) == pytest.approx(7)
