"""The head alone, and what else has no pretrained weights."""

from pathlib import Path

import pytest
from tuning import make_family, make_masked, prepared, recipe, trained_names

HEADS = {
    "distilbert": {"pre_classifier", "classifier"},
    "roberta": {"classifier"},
    "modernbert": {"head", "classifier"},
    "gpt2": {"score"},
}


def test_nothing_below_the_head_is_trained(tiny_model: Path) -> None:
    assert trained_names(prepared(recipe(tiny_model, "head"))) == {"classifier.weight", "classifier.bias"}


def test_a_fresh_pooler_is_part_of_it(tmp_path: Path) -> None:
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    asked = recipe(make_masked(tmp_path / "masked"), "head")
    assert trained_names(prepared(asked)) == pooler | {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("family", sorted(HEADS))
def test_other_families(family: str, tmp_path: Path) -> None:
    names = trained_names(prepared(recipe(make_family(family, tmp_path / "model"), "head")))
    assert {name.partition(".")[0] for name in names} == HEADS[family]
