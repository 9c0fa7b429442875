"""Which keys of a recipe are for texts alone and which for images: what has no effect is refused, before any work."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bentune.bundle.processor import IMAGES

if TYPE_CHECKING:
    from training.recipe.recipe import Recipe

TEXTS_ONLY = {
    "max_tokens": "an image has the size that its model takes",
    "parent": "versions of an image classifier are not compared yet, so none can continue another",
    "distill": "only text classifiers learn from a teacher",
    "prune": "only text classifiers are pruned",
    "data.multi_label": "an image has one label",
    "data.query": "a query gives no images",
    "data.config": "images are read from a folder of classes or a table of files",
    "data.clean": "its rules are for texts",
    "data.near_duplicates": "only exact duplicates of images are found, by their pixels",
    "data.doubtful_labels": "the quick classifier that judges labels reads texts",
    "data.columns.text": "name the column of the images in data.columns.image",
    "data.columns.text_pair": "an image has no second text",
    "train.augment.copies": "each epoch sees another view of every image: set rotation, crop or flip",
    "train.augment.word_rate": "images have no words",
    "train.augment.word_edits": "images have no words",
    "train.augment.character_rate": "images have no letters",
    "train.augment.character_edits": "images have no letters",
}
IMAGES_ONLY = {
    "data.columns.image": "texts have no images",
    "train.augment.rotation": "texts are not turned",
    "train.augment.crop": "texts are not cut out",
    "train.augment.flip": "texts are not mirrored",
}


def refuse_others(task: str | None, name: str, value: Any) -> None:
    """Raise ValueError for a key within the recipe's section `name` that was given though `task` has no use for it."""
    refused = TEXTS_ONLY if task == IMAGES else IMAGES_ONLY if task is not None else {}
    for key in (f"{name}{inner}" for inner in _given(value)):
        if key in refused:
            inner = key.removeprefix(name).removeprefix(".")
            raise ValueError(f"{f'{inner}: ' if inner else ''}not for {task}: {refused[key]}; leave it out")


def _given(value: Any, prefix: str = "") -> Iterator[str]:
    """The value's own place, and below it the place of everything that was given and is not as it would be anyway."""
    yield prefix
    if isinstance(value, BaseModel):
        for name in sorted(value.model_fields_set):
            inner = getattr(value, name)
            if inner != type(value).model_fields[name].default:
                yield from _given(inner, f"{prefix}.{name}")


def without_text_rules(recipe: "Recipe") -> "Recipe":
    """The recipe of an image classifier as the data stage reads it: nothing is judged by how texts look."""
    near = recipe.data.near_duplicates.model_copy(update={"action": "off"})
    data = recipe.data.model_copy(update={"near_duplicates": near, "doubtful_labels": "off"})
    return recipe.model_copy(update={"data": data})
