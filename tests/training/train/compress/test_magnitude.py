"""Magnitude pruning: the smallest weights of all layers together are zero, and stay so in training."""

import pytest
import torch
from architectures import batch, classifier

from training.train.compress.magnitude import hold_zeros, release, zero_smallest, zeros


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.9])
def test_the_smallest_of_all_layers_are_zero(amount: float) -> None:
    model, whole = classifier(), classifier().state_dict()
    with torch.no_grad():
        model.bert.encoder.layer[2].intermediate.dense.weight.mul_(10)
    scaled = {name: weight.clone() for name, weight in model.state_dict().items()}
    zero_smallest(model, amount)
    assert zeros(model) == pytest.approx(amount, abs=1e-3)
    after = model.state_dict()
    assert after.keys() == whole.keys()
    linear = [name for name in after if ".weight" in name and "bert." in name and after[name].dim() == 2]
    linear = [name for name in linear if "embeddings" not in name]
    gone = torch.cat([scaled[name][after[name] == 0].abs() for name in linear])
    left = torch.cat([scaled[name][after[name] != 0].abs() for name in linear])
    assert gone.max() <= left.min()
    # A layer of larger weights loses fewer.
    large = after["bert.encoder.layer.2.intermediate.dense.weight"]
    assert float((large == 0).float().mean()) < amount / 2
    assert all(torch.equal(after[name], scaled[name]) for name in after if name not in linear)


def test_zeros_stay_zero_while_the_others_are_tuned() -> None:
    model = classifier()
    names = list(model.state_dict())
    zero_smallest(model, 0.5)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    hold_zeros(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model(**batch(), labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    release(model)
    assert sorted(model.state_dict()) == sorted(names)
    query = "bert.encoder.layer.0.attention.self.query.weight"
    zero = before[query] == 0
    assert zero.any()
    assert (model.state_dict()[query][zero] == 0).all()
    assert (model.state_dict()[query][~zero] != before[query][~zero]).all()
    assert zeros(model) == pytest.approx(0.5, abs=1e-3)
    assert isinstance(model.bert.encoder.layer[0].attention.self.query.weight, torch.nn.Parameter)
