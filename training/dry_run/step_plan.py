"""Optimizer steps of a training, as the sampler draws them, and a representative sample of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Ints
from training.recipe.recipe import Recipe
from training.train.fit.arguments import steps_per_epoch, total_steps
from training.train.fit.sampler import LengthSampler

GROUPS = 5
"""Number of groups of steps of similar size, by the quantiles of their tokens."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """Steps of a training: their `tokens` with padding and their `groups`, both int64 [steps].

    Group 0 has the fewest tokens. A step has a batch of `batch` rows, computed in micro-batches of `micro_batch` rows
    (gradient accumulation). `longest` are the rows of the step with the largest micro-batch, which needs the most
    memory. `first` are the rows of the first epoch in order. `lengths`, int64 [rows], are the lengths of all rows in
    tokens.
    """

    tokens: Ints
    groups: Ints
    longest: Ints
    first: Ints
    batch: int
    micro_batch: int
    lengths: Ints

    def passes(self, seed: int) -> Iterator[list[tuple[int, Ints]]]:
        """Yield, without end, a list with each group's number and the rows of a step.

        The steps are those of the first epoch, because later epochs have similar steps. No step repeats before all
        steps of its group were drawn. An incomplete last step is left out.
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
    """List the steps of this recipe on rows of these lengths in tokens."""
    train = recipe.train
    micro_batch, sizes = train.batch_size // train.accumulation, np.asarray(lengths, dtype=np.int64)
    steps, an_epoch = total_steps(recipe, len(sizes)), steps_per_epoch(recipe, len(sizes))
    sampler = LengthSampler(train.batch_size, sizes, recipe.seed)
    tokens, widest, longest, first = [], 0, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for epoch in range(-(-steps // an_epoch)):
        sampler.set_epoch(epoch)
        order = np.fromiter(sampler, dtype=np.int64, count=len(sizes))
        padded, largest = _padded(sizes[order], train.batch_size, micro_batch)
        tokens.append(padded)
        if largest.max() > widest:
            step, widest = int(largest.argmax()), int(largest.max())
            longest = order[step * train.batch_size : (step + 1) * train.batch_size]
        first = order if epoch == 0 else first
    of_each = np.concatenate(tokens)[:steps]
    return StepPlan(of_each, _groups(of_each, recipe.seed), longest, first, train.batch_size, micro_batch, sizes)


def padded_tokens(lengths: Ints, micro_batch: int) -> int:
    """Count the tokens of rows, each micro-batch padded to its longest row."""
    return int(_padded(lengths, len(lengths), micro_batch)[0].sum()) if len(lengths) else 0


def _padded(lengths: Ints, batch: int, micro_batch: int) -> tuple[Ints, Ints]:
    """Count the padded tokens of each step and of its largest micro-batch."""
    starts = np.concatenate(
        [np.arange(step, min(step + batch, len(lengths)), micro_batch) for step in range(0, len(lengths), batch)]
    )
    rows = np.diff(np.append(starts, len(lengths)))
    tokens = np.maximum.reduceat(lengths, starts) * rows
    steps = np.flatnonzero(starts % batch == 0)
    return np.add.reduceat(tokens, steps), np.maximum.reduceat(tokens, steps)


def _groups(tokens: Ints, seed: int) -> Ints:
    """Divide steps into equal groups by tokens.

    The seed breaks ties, so that each group spans all epochs.
    """
    order = np.lexsort([np.random.default_rng(seed).random(len(tokens)), tokens])
    groups = np.empty(len(tokens), dtype=np.int64)
    groups[order] = np.arange(len(tokens)) * GROUPS // len(tokens)
    return groups
