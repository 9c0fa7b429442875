"""Samplers that batch rows of similar length, in an order that a resumed run reproduces."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler
from transformers.trainer_pt_utils import LengthGroupedSampler


class LengthSampler(LengthGroupedSampler):
    """Sampler of batches of similar length, in an order that depends on seed and epoch alone.

    transformers' sampler draws from the global generator: a resumed epoch would have another order, so that some rows
    would occur twice and some never. It also yields batches from long to short: where labels correlate with length, as
    star ratings do, the end of each epoch would have few of the labels.
    """

    def __init__(self, batch_size: int, lengths: npt.ArrayLike, seed: int) -> None:
        known = np.asarray(lengths, dtype=np.int32)  # a list would hold an object per row
        super().__init__(batch_size, lengths=known, generator=torch.Generator())  # type: ignore[arg-type]
        self.batch = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the data loader calls this."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        order = list(super().__iter__())
        whole = len(order) // self.batch
        for number in torch.randperm(whole, generator=self.generator).tolist():
            yield from order[number * self.batch : (number + 1) * self.batch]
        yield from order[whole * self.batch :]


class SharedBatches(BatchSampler):
    """Share of one process in each batch of `sampler`, whose order is that of a single process.

    Each row is in exactly one share, also in the last batch. If that batch has fewer rows than there are processes,
    several processes compute its first row. accelerate's own sharding pads the last batch with rows of the first batch.
    """

    def __init__(self, sampler: LengthSampler, batch_size: int, rank: int, world: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch[self.rank :: self.world] or batch[:1]
