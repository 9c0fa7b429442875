"""Draws rows of like length together, in an order that a resumed run finds again."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler
from transformers.trainer_pt_utils import LengthGroupedSampler


class LengthSampler(LengthGroupedSampler):
    """Rows of like length in a batch, the batches in an order that follows from the seed and the epoch alone.

    The one of transformers draws from the global generator, so that a resumed epoch would have another order: some of
    its rows would be seen twice, others never. And it gives the batches from long to short: with labels that go with
    the length, as stars do, the end of each epoch would see few of them.
    """

    def __init__(self, batch_size: int, lengths: npt.ArrayLike, seed: int) -> None:
        known = np.asarray(lengths, dtype=np.int32)  # a list of millions would hold as many objects
        super().__init__(batch_size, lengths=known, generator=torch.Generator())  # type: ignore[arg-type]
        self.batch = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        order = list(super().__iter__())
        whole = len(order) // self.batch
        for number in torch.randperm(whole, generator=self.generator).tolist():
            yield from order[number * self.batch : (number + 1) * self.batch]
        yield from order[whole * self.batch :]


class SharedBatches(BatchSampler):
    """The share of one of several processes in each batch of `sampler`, whose order is that of one process.

    Each row is in one share alone, however the last batch divides; only when it has fewer rows than there are processes
    do some share its first. accelerate's own shares fill the last batch up with rows of the first.
    """

    def __init__(self, sampler: LengthSampler, batch_size: int, rank: int, world: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[self.rank :: self.world] or batch[:1]
