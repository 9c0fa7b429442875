"""The head of a base that is a classifier already: kept by the names of labels, else fresh, and never permuted."""

import shutil
from pathlib import Path

import pytest
import torch
from architectures import LABELS
from tiny import make_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from training.recipe.recipe import Recipe
from training.tasks.base.head import match_labels
from training.tasks.base.load import Base, load_base


@pytest.mark.parametrize(
    ("ours", "theirs", "rows", "words"),
    [
        (["a", "b"], ["b", "a"], {0: 1, 1: 0}, "head kept: 2 of 2 labels by name"),
        (["a", "b"], ["x", "y"], {}, "fresh head: the model has other labels than the data"),
        (["a", "c"], ["a", "b", "d"], {0: 0}, "head kept: 1 of 2 labels by name; fresh rows for 'c'"),
        (
            ["Very Good", "bad"],
            ["very_good", "bad"],
            {0: 0, 1: 1},
            "head kept: 2 of 2 labels by name; the model spells 'Very Good' as 'very_good'",
        ),
        # A spelling that two labels share says nothing of either, and a name goes before a spelling.
        (["Good", "x"], ["good", "GOOD"], {}, "fresh head: the model has other labels than the data"),
        (["Good", "good"], ["good", "bad"], {1: 0}, "head kept: 1 of 2 labels by name; fresh rows for 'Good'"),
        (["1", "2"], ["LABEL_0", "LABEL_1"], {}, "fresh head: the model has other labels than the data"),
    ],
)
def test_labels_are_matched_by_name(ours: list[str], theirs: list[str], rows: dict[int, int], words: str) -> None:
    found = match_labels(ours, theirs)
    assert (found.rows, str(found)) == (rows, words)


def test_a_message_is_short_whatever_labels_are_called() -> None:
    said = str(match_labels(["A" * 10_000, "c" * 10_000], ["a" * 10_000, "b"]))
    assert said.startswith("head kept: 1 of 2 labels by name; the model spells 'AAAA")
    assert len(said) < 300


def classifier(model: Path, labels: list[str]) -> torch.nn.Linear:
    """Make the tiny model a classifier of these labels; returns its output layer."""
    config = AutoConfig.from_pretrained(
        model, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={v: k for k, v in enumerate(labels)}
    )
    made = AutoModelForSequenceClassification.from_pretrained(model, config=config)
    torch.nn.init.normal_(made.classifier.weight)
    torch.nn.init.normal_(made.classifier.bias)
    made.save_pretrained(model)
    layer: torch.nn.Linear = made.classifier
    return layer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def base(model: Path) -> Base:
    recipe = {"name": "x", "task": "text-classification", "model": str(model), "data": {"source": "s"}}
    return load_base(Recipe.model_validate(recipe), LABELS)


def test_a_head_in_another_order_is_put_into_ours(model: Path) -> None:
    """Its rows are not taken as they are, under our names.

    transformers does that for a head of as many labels.
    """
    theirs = LABELS[::-1]
    before = classifier(model, theirs)
    found = base(model)
    assert found.head == f"head kept: {len(LABELS)} of {len(LABELS)} labels by name"
    assert found.fresh == []
    assert list(found.model.config.id2label.values()) == LABELS
    order = [theirs.index(label) for label in LABELS]
    assert torch.equal(found.model.classifier.weight, before.weight[order])
    assert torch.equal(found.model.classifier.bias, before.bias[order])


def test_a_head_of_other_labels_is_fresh(model: Path) -> None:
    before = classifier(model, [f"other {label}" for label in LABELS])
    found, again = base(model), base(model)
    assert found.head == "fresh head: the model has other labels than the data"
    assert found.fresh == ["classifier"]
    weight = found.model.classifier.weight
    assert torch.equal(weight, again.model.classifier.weight)
    assert float(weight.detach().std()) == pytest.approx(found.model.config.initializer_range, rel=0.5)
    assert not torch.allclose(weight, before.weight, atol=0.1)
    assert torch.equal(found.model.classifier.bias, torch.zeros(len(LABELS)))


def test_a_head_that_knows_some_labels_keeps_their_rows(model: Path) -> None:
    theirs = ["something else", LABELS[2], "more", LABELS[0]]
    before = classifier(model, theirs)
    found = base(model)
    assert found.head == f"head kept: 2 of {len(LABELS)} labels by name; fresh rows for {LABELS[1]!r}"
    assert found.fresh == ["classifier"]
    weight = found.model.classifier.weight
    assert torch.equal(weight[[0, 2]], before.weight[[3, 1]])
    assert float(weight[1].detach().std()) == pytest.approx(found.model.config.initializer_range, rel=0.5)


def test_a_base_without_a_head_has_nothing_to_say(model: Path, tmp_path: Path) -> None:
    assert base(model).head == ""
    same = Path(shutil.copytree(model, tmp_path / "same"))
    classifier(same, LABELS)
    assert base(same).head == f"head kept: {len(LABELS)} of {len(LABELS)} labels by name"
