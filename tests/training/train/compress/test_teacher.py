"""Teachers: bundles, and saved classifiers; labels found by name; everything else refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bentune.bundle.errors import InputError
from training.pipeline.fingerprints import teacher_digest
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.tasks.rows import Rows, read_rows
from training.train.compress.teacher import open_teacher

LABELS = ["animal", "food", "tool"]


def nothing(rows: int) -> None:
    pass


def recipe_with(recipe: Path, teacher: Path | str, *more: str) -> Recipe:
    return load_recipe(recipe, [f"distill.teacher={teacher}", *more]).recipe


@pytest.fixture
def rows(tiny_run: Path) -> Rows:
    return read_rows(tiny_run / "data/test.parquet")


@pytest.fixture
def saved(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run's merged model, to change."""
    return Path(shutil.copytree(tiny_run / "merge/model", tmp_path / "teacher"))


def change_config(model: Path, **values: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))


def test_a_bundle_and_the_model_that_it_was_made_from_give_the_same_answers(
    tiny_recipe: Path, tiny_tag: str, tiny_run: Path, rows: Rows
) -> None:
    stored = open_teacher(recipe_with(tiny_recipe, tiny_tag)).logits(rows, LABELS, nothing)
    merged = open_teacher(recipe_with(tiny_recipe, tiny_run / "merge/model")).logits(rows, LABELS, nothing)
    assert stored.dtype == merged.dtype == np.float32
    np.testing.assert_allclose(stored, merged, atol=1e-4)
    assert (stored.argmax(axis=-1) == rows.labels).mean() > 0.9


def test_labels_are_found_by_name(tiny_recipe: Path, tiny_tag: str, saved: Path, rows: Rows) -> None:
    teacher = open_teacher(recipe_with(tiny_recipe, tiny_tag))
    expected = teacher.logits(rows, LABELS, nothing)
    np.testing.assert_array_equal(teacher.logits(rows, ["tool", "animal", "food"], nothing), expected[:, [2, 0, 1]])
    np.testing.assert_array_equal(teacher.logits(rows, ["tool", "food"], nothing), expected[:, [2, 1]])
    np.testing.assert_array_equal(teacher.logits(rows, ["Tool", "ANIMAL", "food"], nothing), expected[:, [2, 0, 1]])
    change_config(saved, id2label={"0": "tool", "1": "food", "2": "animal"})
    other = open_teacher(recipe_with(tiny_recipe, saved))
    np.testing.assert_allclose(other.logits(rows, LABELS, nothing), expected[:, [2, 1, 0]], atol=1e-4)
    with pytest.raises(InputError) as caught:
        teacher.logits(rows, ["animal", "drink", "tool"], nothing)
    assert str(caught.value) == (
        "distill.teacher: the teacher lacks the label 'drink' of the data; it has 'animal', 'food', 'tool': rename the "
        "data's labels with data.labels, or give a teacher of the same labels"
    )


def test_a_teacher_reads_texts_with_its_own_tokenizer_and_length(tiny_recipe: Path, tiny_tag: str, saved: Path) -> None:
    long = Rows(["cat " * 40 + "bread " * 4], None, np.zeros(1, np.int64))
    for teacher in (tiny_tag, saved):
        as_bundle, shorter, longer = (
            open_teacher(recipe_with(tiny_recipe, teacher, *how)).logits(long, LABELS, nothing)
            for how in ((), ("max_tokens=8", "distill.max_tokens=24"), ("distill.max_tokens=6",))
        )
        np.testing.assert_array_equal(as_bundle, shorter)
        assert np.abs(as_bundle - longer).max() > 1e-4


@pytest.mark.parametrize("teacher", ["bundle", "saved"])
def test_a_length_that_the_teacher_does_not_take_is_refused(
    teacher: str, tiny_recipe: Path, tiny_tag: str, saved: Path
) -> None:
    source = tiny_tag if teacher == "bundle" else saved
    with pytest.raises(InputError, match=r"^distill.max_tokens: 100 is more than the .*(24|64)"):
        open_teacher(recipe_with(tiny_recipe, source, "distill.max_tokens=100"))


def test_what_is_no_fine_tuned_classifier_is_refused(
    tiny_recipe: Path, tiny_model: Path, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"^distill.teacher: .*tiny-bert has no weights for its classifier: give a classifier"
    ):
        open_teacher(recipe_with(tiny_recipe, tiny_model))
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(
        InputError, match=r"^distill.teacher: .*/teacher has no usable model \(model.safetensors is need"
    ):
        open_teacher(recipe_with(tiny_recipe, saved))
    with pytest.raises(InputError, match=r"^distill.teacher: nowhere/at.all is not there|^distill.teacher: the config"):
        open_teacher(recipe_with(tiny_recipe, "nowhere/at.all"))
    with pytest.raises(InputError, match=r"^distill.teacher: tiny:1 is not in the BentoML model store"):
        open_teacher(recipe_with(tiny_recipe, "tiny:1"))


def test_logits_that_are_no_numbers_are_refused(tiny_recipe: Path, saved: Path, rows: Rows) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    weights["classifier.bias"][1] = float("nan")
    save_file(weights, saved / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"^distill.teacher: the teacher gives logits that are not finite"):
        open_teacher(recipe_with(tiny_recipe, saved)).logits(rows, LABELS, nothing)


def test_the_digest_stands_for_the_teacher(tiny_tag: str, saved: Path) -> None:
    before = teacher_digest(str(saved))
    assert before != teacher_digest(tiny_tag) == teacher_digest(tiny_tag)
    change_config(saved, dropout=0.3)
    assert teacher_digest(str(saved)) != before
    with pytest.raises(InputError, match=r"^distill.teacher: /nowhere is not there"):
        teacher_digest("/nowhere")
