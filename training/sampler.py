"""Draws rows of like length together, in an order that a resumed run finds again."""

from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class LengthSampler(LengthGroupedSampler):
    """Rows of like length in a batch, the batches in an order that follows from the seed and the epoch alone.

    The one of transformers draws from the global generator, so that a resumed epoch would have another order: some of
    its rows would be seen twice, others never. And it gives the batches from long to short: with labels that go with
    the length, as stars do, the end of each epoch would see few of them.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
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
