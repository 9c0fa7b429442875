"""The optimizer steps that a training will take, as the sampler draws them, and the few of them that stand for all."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bentune.quality.bootstrap import Ints
from training.recipe.recipe import Recipe
from training.train.fit.arguments import steps_per_epoch, total_steps
from training.train.fit.sampler import LengthSampler

GROUPS = 5
"""Steps of like size are measured together: by the quantiles of their tokens."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """`tokens`, int64 [steps], are those of each step with its padding; `groups`, int64 [steps], its group.

    Group 0 has the smallest. `longest` are the rows of the step with the largest part, which needs the most memory: a
    part is what is computed at once. `first` are the rows of the first epoch in their order; a step has `batch`
    of them, in parts of `part`. `lengths`, int64 [rows], are those of the rows.
    """

    tokens: Ints
    groups: Ints
    longest: Ints
    first: Ints
    batch: int
    part: int
    lengths: Ints

    def passes(self, seed: int) -> Iterator[list[tuple[int, Ints]]]:
        """Without an end: of each group its number and the rows of a step, which is drawn from the first epoch.

        None comes again before all of its group did. Other epochs have like steps; an unfinished last one is left out.
        """
        whole = max(1, len(self.first) // self.batch)
        generator = np.random.default_rng(seed)
        near = self.groups[:whole]
        drawn = {int(group): generator.permutation(np.flatnonzero(near == group)) for group in np.unique(near)}
        number = 0
        while True:
            chosen = {group: int(steps[number % len(steps)]) for group, steps in drawn.items()}
            yield [(group, self.first[step * self.batch : (step + 1) * self.batch]) for group, step in chosen.items()]
            number += 1


def step_plan(recipe: Recipe, lengths: npt.ArrayLike) -> StepPlan:
    """The steps of this recipe on rows of these lengths in tokens."""
    train = recipe.train
    part, sizes = train.batch_size // train.accumulation, np.asarray(lengths, dtype=np.int64)
    steps, an_epoch = total_steps(recipe, len(sizes)), steps_per_epoch(recipe, len(sizes))
    sampler = LengthSampler(train.batch_size, sizes, recipe.seed)
    tokens, widest, longest, first = [], 0, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for epoch in range(-(-steps // an_epoch)):
        sampler.set_epoch(epoch)
        order = np.fromiter(sampler, dtype=np.int64, count=len(sizes))
        padded, largest = _padded(sizes[order], train.batch_size, part)
        tokens.append(padded)
        if largest.max() > widest:
            step, widest = int(largest.argmax()), int(largest.max())
            longest = order[step * train.batch_size : (step + 1) * train.batch_size]
        first = order if epoch == 0 else first
    of_each = np.concatenate(tokens)[:steps]
    return StepPlan(of_each, _groups(of_each, recipe.seed), longest, first, train.batch_size, part, sizes)


def padded_tokens(lengths: Ints, part: int) -> int:
    """Tokens of rows with their padding, where `part` of them at a time are as long as the longest."""
    return int(_padded(lengths, len(lengths), part)[0].sum()) if len(lengths) else 0


def _padded(lengths: Ints, batch: int, part: int) -> tuple[Ints, Ints]:
    """Of each step its tokens with padding, and those of its largest part. Parts do not go over the end of a step."""
    starts = np.concatenate(
        [np.arange(step, min(step + batch, len(lengths)), part) for step in range(0, len(lengths), batch)]
    )
    rows = np.diff(np.append(starts, len(lengths)))
    parts = np.maximum.reduceat(lengths, starts) * rows
    steps = np.flatnonzero(starts % batch == 0)
    return np.add.reduceat(parts, steps), np.maximum.reduceat(parts, steps)


def _groups(tokens: Ints, seed: int) -> Ints:
    """As many steps in each group; which of those of the same size, the seed decides, so that none is of one epoch."""
    order = np.lexsort([np.random.default_rng(seed).random(len(tokens)), tokens])
    groups = np.empty(len(tokens), dtype=np.int64)
    groups[order] = np.arange(len(tokens)) * GROUPS // len(tokens)
    return groups
