"""The order of rows."""

import torch

from training.train.fit.sampler import LengthSampler


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    lengths = [number % 37 for number in range(200)]
    sampler = LengthSampler(8, lengths, seed=5)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert [sorted(order) for order in orders] == [list(range(200))] * 3
    assert orders[0] == orders[2] != orders[1]
    torch.rand(3)
    sampler.set_epoch(0)
    assert list(sampler) == orders[0]
    assert list(LengthSampler(8, lengths, seed=6)) != orders[0]
