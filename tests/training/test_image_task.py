"""A run on images, every stage: it learns, every hop is proven, each method works, and what is served agrees."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Quiet
from tiny_images import image_recipe

from bentune.bundle.errors import GateError, InputError
from bentune.bundle.manifest import open_bundle
from bentune.bundle.processor import ImageSettings
from rollout.compare.models import BundleScorer
from rollout.predict import predict_file
from training.pipeline.pipeline import run_stage, stages_of
from training.pipeline.run_dir import RunDir
from training.pipeline.stage import Context
from training.prove.verify import run as verify
from training.recipe.file import load_recipe
from training.report.facts import facts_of
from training.report.model_card import model_card
from training.report.page import page_of
from training.tasks.base.classifier import load_classifier, loads
from training.tasks.logits import torch_logits
from training.tasks.registry import TASKS
from training.tasks.rows import read_rows
from training.tasks.saved import labels_of, tokenizer_of
from training.train.methods import load_tuned

METHODS: list[Any] = ["lora", {"name": "lora", "dora": True}, "bias", "head", "freeze", "qlora"]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_learns_and_every_hop_agrees(image_run: Path) -> None:
    evaluation = read(image_run / "evaluate/evaluation.json")
    assert evaluation["tuned"]["accuracy"]["value"] > evaluation["base"]["accuracy"]["value"] + 0.3
    hops = read(image_run / "verify/parity.json")["hops"]
    assert [hop["hop"] for hop in hops] == ["merge", "export", "batch"]
    assert all(hop["rows_with_other_tokens"] == hop["label_flips"] == 0 for hop in hops)
    assert all(hop["largest_difference"] < 1e-3 for hop in hops)
    assert len({hop["tokenizer_digest"] for hop in hops}) == 1


def test_rows_are_shown_by_where_they_come_from(image_run: Path) -> None:
    evaluation = read(image_run / "evaluate/evaluation.json")
    shown = [row["text"] for row in evaluation["changed"] + evaluation["mistakes"]]
    assert shown
    assert all(text.endswith(".png") and len(text) < 30 for text in shown)


def test_what_is_served_is_what_was_trained(
    image_recipe_file: Path, image_run: Path, image_bundle: Path, tmp_path: Path
) -> None:
    """The bundle scores the test images offline as the trained model does."""
    recipe, rows = load_recipe(image_recipe_file).recipe, read_rows(image_run / "data/test.parquet")
    bundle = open_bundle(image_bundle)
    scorer = BundleScorer(bundle)
    lines = [json.dumps({"image": text}) for text in rows.texts]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    column = bundle.manifest.columns.text
    predict_file(scorer, tmp_path / "rows.jsonl", tmp_path / "out.jsonl", text_column=column, progress=lambda _: None)
    served = [json.loads(line)["prediction"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    trained = image_run / "train"
    model = load_tuned(recipe, labels_of(trained), trained)
    logits, _ = torch_logits(model, tokenizer_of(trained), rows, 256, lambda _: None)
    labels = bundle.manifest.labels
    assert [one[0]["label"] for one in served] == [labels[best] for best in logits.argmax(axis=1)]


def test_a_row_that_is_no_image_is_named(image_bundle: Path, tmp_path: Path) -> None:
    scorer: Any = BundleScorer(open_bundle(image_bundle))
    (tmp_path / "rows.jsonl").write_text('{"image": "aGVsbG8="}\n')
    options: dict[str, Any] = {"text_column": "image", "progress": lambda _: None}
    with pytest.raises(InputError, match=r"rows\.jsonl, row 0 \(line 1\): input 0 is no PNG and no JPEG image"):
        predict_file(scorer, tmp_path / "rows.jsonl", tmp_path / "o", strict=True, **options)
    assert predict_file(scorer, tmp_path / "rows.jsonl", tmp_path / "p", **options).errors == 1


def test_another_image_processor_is_found_out(
    image_recipe_file: Path, image_run: Path, context: Callable[..., Context], tmp_path: Path
) -> None:
    """Were one step of it lost on the way to serving, the hop is named."""
    exported = tmp_path / "export"
    shutil.copytree(image_run / "export", exported)
    settings = ImageSettings.model_validate(read(exported / "processor/settings.json"))
    (exported / "processor/settings.json").write_text(
        settings.model_copy(update={"mean": None, "std": None}).model_dump_json()
    )
    inputs = {name: image_run / name for name in ("data", "train", "merge")} | {"export": exported}
    with pytest.raises(GateError, match="the hop `export`.*gives other tokens for 16 of 16 rows"):
        verify(context(load_recipe(image_recipe_file).recipe, **inputs))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method(method: Any, image_model: Path, image_run: Path, image_folder: Path, tmp_path: Path) -> None:
    """Trained, merged and proven in a few steps; the frozen part stays as it was."""
    train = {"epochs": 1, "learning_rate": 0.005, "augment": {"rotation": 10, "flip": "vertical"}}
    path = image_recipe(tmp_path / "recipe.yaml", image_model, image_folder, method=method, train=train)
    recipe = load_recipe(path).recipe
    with RunDir.open(tmp_path / "runs", recipe.name) as run:
        for stage in stages_of(recipe)[:6]:
            if stage.name != "evaluate":
                run_stage(stage.name, recipe, run, Quiet())
        outcome = run_stage("verify", recipe, run, Quiet())
        assert outcome.result.merge < 1e-3
        merged = load_classifier(run.root / "merge/model")
        assert loads(merged.config, TASKS["image-classification"])
        trained = read(run.root / "train/stage.json")["summary"]
    assert trained["parameters"]["trainable"] < trained["parameters"]["total"]
    assert np.isfinite(trained["loss"])


def test_a_calibrated_model_is_proven_too(image_model: Path, image_folder: Path, tmp_path: Path) -> None:
    more = {"calibrate": {"temperature": True}, "data": {"source": str(image_folder), "split": {"validation": 0.3}}}
    path = image_recipe(tmp_path / "recipe.yaml", image_model, image_folder, **more)
    recipe = load_recipe(path, ["train.epochs=1"]).recipe
    with RunDir.open(tmp_path / "runs", recipe.name) as run:
        for stage in ("data", "train", "merge", "calibrate", "export", "verify"):
            summary = run_stage(stage, recipe, run, Quiet()).result.written()
    assert summary["calibrate"] < 1e-3


def test_a_changed_image_redoes_the_data_stage(image_model: Path, image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    recipe = load_recipe(image_recipe(tmp_path / "recipe.yaml", image_model, folder)).recipe
    with RunDir.open(tmp_path / "runs", recipe.name) as run:
        assert run_stage("data", recipe, run, Quiet()).redone
        assert not run_stage("data", recipe, run, Quiet()).redone
        (folder / "left/000.png").unlink()
        assert run_stage("data", recipe, run, Quiet()).redone


def test_a_model_of_texts_is_refused_before_training(tiny_model: Path, image_folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(image_recipe(tmp_path / "recipe.yaml", tiny_model, image_folder)).recipe
    with RunDir.open(tmp_path / "runs", recipe.name) as run:
        run_stage("data", recipe, run, Quiet())
        with pytest.raises(InputError, match="classifies no images"):
            run_stage("train", recipe, run, Quiet())


def test_the_report_and_the_card_speak_of_images(image_recipe_file: Path, image_run: Path) -> None:
    recipe = load_recipe(image_recipe_file).recipe
    facts = facts_of(recipe, {stage.name: image_run / stage.name for stage in stages_of(recipe)[:-1]})
    card = model_card(facts)
    assert "to images like those that it was trained on" in card
    assert "-F file=@image.png" in card
    assert not re.search(r"\btexts?\b", card.partition("## Intended use")[2], re.IGNORECASE)
    page = page_of(facts, [], {"python": "3.11.1"}, "a1b2c3", "recipe.yaml")
    assert re.search(r"(left|right|bottom)/0\d\d\.png", page)  # an answer that changed, by its file
    assert "How long the rows are" not in page
    assert "labels were not judged" not in page
    assert "base64" not in page
    assert "texts a second" not in page
    assert page.count("inputs a second") == 2  # the plot's axis, and what it shows in words
