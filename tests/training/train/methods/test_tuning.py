"""Counts of weights, and the parts that every method trains."""

from pathlib import Path

import pytest
from tuning import LABELS, make_masked, prepared, recipe

from training.tasks.base.load import load_base
from training.train.methods import ParameterCount, count
from training.train.methods.tuning import trained_whole, within


def test_full_tuning_trains_every_weight(tiny_model: Path) -> None:
    model = prepared(recipe(tiny_model, "full"))
    total = sum(weight.numel() for weight in model.parameters())
    assert count(model) == ParameterCount(trainable=total, total=total)


def test_the_head_and_what_is_fresh_is_trained_whole(tiny_model: Path, tmp_path: Path) -> None:
    assert trained_whole(load_base(recipe(tiny_model, "full"), LABELS)) == ["classifier"]
    masked = recipe(make_masked(tmp_path / "masked"), "full")
    assert trained_whole(load_base(masked, LABELS)) == ["classifier", "pooler"]


@pytest.mark.parametrize(
    ("name", "inside"),
    [("bert.pooler.dense.weight", True), ("classifier", True), ("bert.pooler2.dense", False), ("bert", False)],
)
def test_parts_are_told_by_their_whole_name(name: str, inside: bool) -> None:
    assert within(name, ["classifier", "pooler"]) is inside
