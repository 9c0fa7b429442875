"""Students: evenly spaced layers of a larger model, with its weights and its head, as a saved copy loads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import LABELS, batch, classifier
from transformers import AutoModelForSequenceClassification

from bentune.bundle.errors import InputError
from training.recipe.file import load_recipe
from training.tasks.base import load_base
from training.tasks.student import with_fewer_layers


def layer_weights(model: Any, path: str, layer: int) -> dict[str, torch.Tensor]:
    return dict(model.get_submodule(f"{path}.{layer}").state_dict())


@pytest.mark.parametrize(
    ("kind", "path", "there", "keep", "chosen"),
    [
        ("bert", "bert.encoder.layer", 12, 6, [0, 2, 4, 7, 9, 11]),  # DistilBERT's
        ("bert", "bert.encoder.layer", 6, 3, [0, 2, 5]),
        ("roberta", "roberta.encoder.layer", 3, 2, [0, 2]),
        ("distilbert", "distilbert.transformer.layer", 4, 1, [0]),
    ],
)
def test_a_student_has_evenly_spaced_layers(
    kind: str, path: str, there: int, keep: int, chosen: list[int], tmp_path: Path
) -> None:
    model = classifier(kind, layers=there)
    student = with_fewer_layers(model, keep)
    assert (student.config.num_hidden_layers, model.config.num_hidden_layers) == (keep, there)
    for place, layer in enumerate(chosen):
        kept, original = layer_weights(student, path, place), layer_weights(model, path, layer)
        assert kept.keys() == original.keys()
        assert all(torch.equal(kept[name], original[name]) for name in kept)
    others = {name: weight for name, weight in model.state_dict().items() if not name.startswith(path)}
    assert "classifier.bias" in others or "classifier.out_proj.bias" in others
    assert all(torch.equal(student.state_dict()[name], weight) for name, weight in others.items())
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch()).logits, student(**batch()).logits)
    assert [loaded.config.id2label[index] for index in range(3)] == LABELS


def test_all_layers_are_the_model_itself() -> None:
    model = classifier(layers=2)
    assert with_fewer_layers(model, 2) is model


def test_more_layers_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(InputError, match=r"^distill.student_layers: 4 is more than the 3 layers of the model"):
        with_fewer_layers(classifier(), 4)


def test_a_model_whose_layers_share_weights_has_none_to_choose_from() -> None:
    with pytest.raises(InputError, match=r"^distill.student_layers: a albert has no list of layers"):
        with_fewer_layers(classifier("albert"), 1)


def test_every_stage_loads_the_student_as_the_base(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["distill.teacher=x", "distill.student_layers=1"]).recipe
    base = load_base(recipe, LABELS)
    assert len(base.model.bert.encoder.layer) == base.model.config.num_hidden_layers == 1
    assert base.fresh == ["classifier"]
    assert not base.model.training
