"""Whatever the method: what was saved is what was trained, and it reaches the served answers with its labels."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import Quiet, make_model
from tuning import LABELS, logits, prepared, recipe, saved

from bentune.bundle.errors import InputError
from training.pipeline.stage import Context
from training.prove import export, merge, verify
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.tasks.saved import config_labels
from training.train import stage as train
from training.train.methods import load_same_base, load_tuned, merge_tuned

METHODS = [
    "full",
    "lora",
    {"name": "lora", "rank": 2, "target_modules": ["query", "value"]},
    {"name": "lora", "rslora": True},
    {"name": "lora", "dora": True},
    "qlora",
    "bias",
    "freeze",
    "head",
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_was_saved_is_what_was_trained_and_merged(method: Any, tiny_model: Path, tmp_path: Path) -> None:
    asked = recipe(tiny_model, method)
    untrained = logits(prepared(asked))
    model = saved(asked, tmp_path / "tuned")
    loaded = load_tuned(asked, LABELS, tmp_path / "tuned")
    assert torch.equal(logits(loaded), logits(model))
    assert (logits(loaded) - untrained).abs().max() > 0.01
    merged = merge_tuned(asked, LABELS, tmp_path / "tuned")
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=0)
    assert type(merged).__name__ == "BertForSequenceClassification"
    assert not any(path.suffix in (".bin", ".pt", ".pth") for path in (tmp_path / "tuned").rglob("*"))
    if method == "full":
        assert json.loads((tmp_path / "tuned/model/config.json").read_text())["id2label"] == {
            str(index): label for index, label in enumerate(LABELS)
        }


@pytest.mark.parametrize("method", ["lora", "qlora", "bias", "full"])
def test_what_was_trained_is_never_put_into_another_base(method: str, tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    asked = recipe(model, method)
    saved(asked, tmp_path / "tuned")
    make_model(model, seed=1)
    with pytest.raises(InputError) as caught:
        load_same_base(asked, LABELS, tmp_path / "tuned")
    assert str(caught.value) == (
        f"model: {model} has changed since it was tuned: run `bentune train` again, or restore its files"
    )
    if method == "full":
        assert load_tuned(asked, LABELS, tmp_path / "tuned") is not None
    else:
        with pytest.raises(InputError):
            load_tuned(asked, LABELS, tmp_path / "tuned")


@pytest.mark.parametrize(
    "method",
    ["qlora", {"name": "lora", "rslora": True, "dora": True}, "bias", "freeze", "head"],
    ids=["qlora", "rslora and dora", "bias", "freeze", "head"],
)
def test_labels_and_head_reach_the_served_model(method: Any, tiny_recipe: Path, tiny_run: Path, tmp_path: Path) -> None:
    """`full` and plain `lora` have whole runs of their own."""
    values = load_recipe(tiny_recipe).recipe.model_dump() | {
        "method": method,
        "train": {"epochs": 2, "learning_rate": 0.01},
    }
    report, inputs = Quiet(), {"data": tiny_run / "data"}
    summaries = {}
    for name, stage in {"train": train, "merge": merge, "export": export, "verify": verify}.items():
        (tmp_path / name).mkdir()
        context = Context(Recipe.model_validate(values), tmp_path / name, dict(inputs), report)
        summaries[name] = stage.run(context)
        inputs[name] = context.work
    assert summaries["verify"].merge < 1e-5
    assert config_labels(tmp_path / "merge/model") == config_labels(tmp_path / "export") == LABELS
    (kept,) = (load_file(path) for path in (tmp_path / "train").glob("*/*model.safetensors"))
    merged = load_file(tmp_path / "merge/model/model.safetensors")
    head = next(weight for name, weight in kept.items() if name.endswith("classifier.weight"))
    assert torch.equal(merged["classifier.weight"], head)
    losses = [point.loss for point in summaries["train"].curve]
    assert losses[-1] < losses[0]
    chosen = summaries["train"].method
    counted = summaries["train"].parameters
    assert report.said[0] == (
        f"{chosen}: {counted.trainable:,} of {counted.total:,} weights are trained "
        f"({counted.trainable / counted.total:.1%})"
    )
