"""A warm start: the parent's own weights, head included, and every later stage on top of the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Quiet
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle, open_bundle
from training.pipeline.previous_version import open_parent, weights_of
from training.pipeline.stage import Context
from training.prove import merge
from training.recipe.file import load_recipe
from training.tasks.logits import torch_logits
from training.tasks.rows import read_rows
from training.train import stage as train
from training.train.methods import load_same_base

LORA = ["method=lora", "train.epochs=1", "train.learning_rate=0.0001"]


def trained(recipe: Path, overrides: list[str], run: Path, work: Path) -> tuple[Context, dict[str, Any]]:
    work.mkdir()
    context = Context(load_recipe(recipe, [*LORA, *overrides]).recipe, work, {"data": run / "data"}, Quiet())
    return context, train.run(context).written()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_starts_from_the_parents_weights(
    method: str, tiny_recipe: Path, tiny_run: Path, tiny_tag: str, tmp_path: Path
) -> None:
    how = [f"method={method}"]
    warm, summary = trained(
        tiny_recipe, [*how, f"parent={tiny_tag}", "train.warm_start=true"], tiny_run, tmp_path / "warm"
    )
    _, cold = trained(tiny_recipe, [*how, f"parent={tiny_tag}"], tiny_run, tmp_path / "cold")
    assert summary["base"] == tiny_tag
    assert cold["base"] == warm.recipe.model
    # The first ten steps: the parent knew the rows, a fresh head knows nothing.
    assert summary["curve"][0]["loss"] < 0.2 * cold["curve"][0]["loss"]
    rows, labels = read_rows(tiny_run / "data/test.parquet"), ["animal", "food", "tool"]
    merged = tiny_run / "merge/model"
    tokenizer = AutoTokenizer.from_pretrained(merged)
    expected, _ = torch_logits(
        AutoModelForSequenceClassification.from_pretrained(merged).eval(), tokenizer, rows, 24, lambda _: None
    )
    base, _ = torch_logits(load_same_base(warm.recipe, labels, warm.work), tokenizer, rows, 24, lambda _: None)
    np.testing.assert_allclose(base, expected, atol=1e-5)
    # The merged model is the adapter on those weights.
    (tmp_path / "merge").mkdir()
    merge.run(Context(warm.recipe, tmp_path / "merge", {"train": warm.work}, Quiet()))
    after = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merge/model").eval()
    assert [after.config.id2label[index] for index in range(3)] == labels
    logits, _ = torch_logits(after, tokenizer, rows, 24, lambda _: None)
    assert 0 < np.abs(logits - expected).max() < 2
    assert (logits.argmax(axis=-1) == rows.labels).mean() > 0.9


@pytest.fixture
def parent(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def test_the_run_that_made_the_parent_is_found_by_its_tag_and_content(
    parent: Bundle, tiny_run: Path, tmp_path: Path, copied: Callable[[Path], Path], tiny_model: Path
) -> None:
    runs = copied(tiny_run)
    assert weights_of(parent, str(tiny_model), runs) == runs / "tiny" / tiny_run.name / "merge/model"
    with pytest.raises(InputError) as caught:
        weights_of(parent, str(tiny_model), tmp_path / "elsewhere")
    assert f"the weights of {parent.tag} are needed, which its bundle does not hold: no run in " in str(caught.value)
    with pytest.raises(InputError, match="come from .*tiny-bert, the recipe's model is other: give the same model"):
        weights_of(parent, "other", runs)


@pytest.mark.parametrize("damage", ["weights", "gone", "artifacts"])
def test_weights_that_are_not_the_parents_any_more_are_refused(
    damage: str, parent: Bundle, tiny_run: Path, copied: Callable[[Path], Path], tiny_model: Path
) -> None:
    runs = copied(tiny_run)
    root = runs / "tiny" / tiny_run.name
    if damage == "weights":
        # A merge that was made again, with a manifest of its own that is right.
        file = root / "merge/model/model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x55")
        record = json.loads((root / "merge/stage.json").read_text())
        from bentune.bundle.files import sha256_file

        record["files"]["model/model.safetensors"]["sha256"] = sha256_file(file)
        (root / "merge/stage.json").write_text(json.dumps(record))
    elif damage == "gone":
        shutil.rmtree(root / "merge")
    else:
        (root / "package/artifacts.json").write_text(json.dumps({"model": parent.tag, "content": parent.content}))
    words = "no run in .* made it" if damage == "artifacts" else "/merge is not what it was when tiny:.* was made"
    with pytest.raises(InputError, match=words):
        weights_of(parent, str(tiny_model), runs)


def test_a_parent_must_be_in_the_store_by_its_whole_tag(tiny_tag: str) -> None:
    assert open_parent(tiny_tag).tag == tiny_tag
    for given in ("tiny:20200101-000000-abcdef", tiny_tag[:-1]):
        with pytest.raises(InputError, match=f"parent: {given} is not in the BentoML model store"):
            open_parent(given)
