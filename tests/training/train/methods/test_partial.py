"""Only what was trained is kept, and it goes back into the base that it was trained in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tuning import LABELS, recipe, saved, trained_names

from bentune.bundle.errors import BentuneError
from training.train.methods import load_tuned


@pytest.mark.parametrize("method", ["bias", "head", "freeze"])
def test_what_was_trained_is_all_that_is_kept(method: str, tiny_model: Path, tmp_path: Path) -> None:
    model = saved(recipe(tiny_model, method), tmp_path / "tuned")
    weights = load_file(tmp_path / "tuned/tuned/model.safetensors")
    assert weights.keys() == trained_names(model)
    assert all(torch.equal(weight, model.get_parameter(name)) for name, weight in weights.items())


@pytest.mark.parametrize("change", ["shape", "name"])
def test_weights_of_another_model_are_not_taken(change: str, tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, "head")
    saved(asked, tmp_path / "tuned")
    file = tmp_path / "tuned/tuned/model.safetensors"
    weights = load_file(file)
    weight = weights.pop("classifier.weight")
    save_file(weights | ({"classifier.weight": weight[:2]} if change == "shape" else {"score.weight": weight}), file)
    words = "classifier.weight" if change == "shape" else "which has no weight score.weight"
    with pytest.raises(BentuneError, match=f"model.safetensors does not fit the base model(?s:.)*{words}"):
        load_tuned(asked, LABELS, tmp_path / "tuned")
