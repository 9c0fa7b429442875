"""Settings without a meaning for a task are refused in plain words, with their key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bentune.bundle.errors import InputError
from training.recipe.file import explain, load_recipe, spelled_out
from training.recipe.recipe import Recipe
from training.tasks.registry import TASKS

TEXTS_ONLY = TASKS["image-classification"].refused
IMAGES_ONLY = TASKS["text-classification"].refused

LEAST: dict[str, Any] = {"task": "image-classification", "model": "m", "data": {"source": "s"}}
GIVEN: dict[str, Any] = {
    "max_tokens": 128,
    "parent": "a:1",
    "distill": {"teacher": "t"},
    "prune": {"kind": "magnitude"},
    "data.multi_label": True,
    "data.query": "SELECT 1",
    "data.config": "c",
    "data.clean": {"html": "fix"},
    "data.near_duplicates": {"action": "show"},
    "data.doubtful_labels": "remove",
    "data.columns.text": "body",
    "data.columns.text_pair": "other",
    "train.augment.copies": 1,
    "train.augment.word_rate": 0.2,
    "train.augment.word_edits": ["swap"],
    "train.augment.character_rate": 0.1,
    "train.augment.character_edits": ["typo"],
    "data.columns.image": "picture",
    "train.augment.rotation": 10,
    "train.augment.crop": 0.5,
    "train.augment.flip": "both",
}


def load(path: Path, task: str, key: str | None = None) -> Recipe:
    content: dict[str, Any] = {**LEAST, "task": task, "data": {"source": "sql:DB" if key == "data.query" else "s"}}
    if key is not None:
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = GIVEN[key]
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path).recipe


def test_every_key_is_tried() -> None:
    assert GIVEN.keys() == TEXTS_ONLY.keys() | IMAGES_ONLY.keys()


@pytest.mark.parametrize("key", TEXTS_ONLY)
def test_keys_of_texts_are_refused_for_images(key: str, tmp_path: Path) -> None:
    load(tmp_path / "text.yaml", "text-classification", key)
    with pytest.raises(InputError, match="not for image-classification") as caught:
        load(tmp_path / "image.yaml", "image-classification", key)
    section, _, inner = key.partition(".")
    assert f"{section}: {inner + ': ' if inner else ''}not for" in str(caught.value)
    assert TEXTS_ONLY[key] in str(caught.value)


@pytest.mark.parametrize("key", IMAGES_ONLY)
def test_keys_of_images_are_refused_for_texts(key: str, tmp_path: Path) -> None:
    load(tmp_path / "image.yaml", "image-classification", key)
    with pytest.raises(InputError, match="not for text-classification"):
        load(tmp_path / "text.yaml", "text-classification", key)


def test_a_recipe_that_is_spelled_out_is_read_again(tmp_path: Path) -> None:
    """Every value is in it, the defaults of the other task included."""
    recipe = load(tmp_path / "image.yaml", "image-classification")
    (tmp_path / "again.yaml").write_text(spelled_out(recipe))
    assert load_recipe(tmp_path / "again.yaml").recipe == recipe
    assert {one.key for one in explain(load_recipe(tmp_path / "again.yaml"))} >= {"train.augment.rotation"}


def test_nothing_is_judged_by_how_texts_look(tmp_path: Path) -> None:
    recipe = load(tmp_path / "image.yaml", "image-classification")
    data = TASKS[recipe.task].as_read(recipe).data
    assert (data.near_duplicates.action, data.doubtful_labels) == ("off", "off")
