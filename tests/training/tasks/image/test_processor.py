"""The service's arithmetic gives the very values of transformers' image processors, or the model is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_images import make_image_model, picture, png
from transformers import (
    CLIPImageProcessor,
    DeiTImageProcessor,
    ViTConfig,
    ViTImageProcessor,
)

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import ImageLimits
from bentune.bundle.processor import ImageSettings
from service.tasks.images import data_url, pixel_values
from training.recipe.recipe import Recipe
from training.tasks.base.load import load_image_processor
from training.tasks.image.processor import ImageProcessor, patches, settings_of


def recipe(model: Path) -> Recipe:
    return Recipe.model_validate(
        {"name": "x", "task": "image-classification", "model": str(model), "data": {"source": "s"}}
    )


def with_processor(tmp_path: Path, processor: Any) -> Path:
    model = make_image_model(tmp_path / "model")
    processor.save_pretrained(model)
    return model


@pytest.mark.parametrize(
    "own",
    [
        ViTImageProcessor(),
        ViTImageProcessor(size={"height": 30, "width": 20}, resample=3, do_normalize=False),
        ViTImageProcessor(size={"height": 8, "width": 8}, do_rescale=False, do_normalize=False),
        DeiTImageProcessor(),  # 256 x 256, of which the middle 224 x 224
        CLIPImageProcessor(),  # the shortest edge 224, of which the middle
    ],
    ids=["vit", "vit-bicubic", "vit-plain", "deit", "clip"],
)
def test_the_service_gives_the_same_values(own: Any, tmp_path: Path) -> None:
    processor = load_image_processor(recipe(with_processor(tmp_path, own)))
    for image in (picture("left", 1), picture("left", 1).resize((300, 223)), picture("left", 1).resize((5, 400))):
        ours, theirs = pixel_values(image, processor.settings), processor.pixels(image)
        assert ours.dtype == theirs.dtype == np.float32
        assert np.array_equal(ours, theirs)
        assert ours.shape[1:] == processor.settings.shape


def test_an_image_three_pixels_high_is_no_puzzle(tmp_path: Path) -> None:
    """transformers would take its rows for its colours."""
    processor = load_image_processor(recipe(make_image_model(tmp_path / "model")))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 50, 3), dtype=np.uint8))
    assert np.array_equal(pixel_values(image, processor.settings), processor.pixels(image))


def test_it_is_saved_and_read_again(tmp_path: Path) -> None:
    processor = load_image_processor(recipe(make_image_model(tmp_path / "model")))
    assert processor.limits == ImageLimits(max_tokens=5, max_pixels=25_000_000)
    processor.save_pretrained(tmp_path / "saved")
    again = ImageProcessor.saved(tmp_path / "saved")
    assert (again.settings, again.limits) == (processor.settings, processor.limits)
    text = data_url(png(picture("left", 1)))
    (one,) = again.encode([text])
    assert np.array_equal(one.values, processor.served().encode(text, truncate=False).values)


@pytest.mark.parametrize(
    "own",
    [ViTImageProcessor(do_resize=False), CLIPImageProcessor(size={"shortest_edge": 8}, do_center_crop=False)],
    ids=["no one size", "proportions are kept"],
)
def test_steps_that_cannot_be_served_are_refused(own: Any, tmp_path: Path) -> None:
    model = with_processor(tmp_path, own)
    with pytest.raises(InputError, match=r"preprocessor_config\.json has no steps that can be served"):
        load_image_processor(recipe(model))


def test_arithmetic_that_the_service_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor may do more than its settings define.

    Those that crop by a share of the size do.
    """
    model = make_image_model(tmp_path / "model")
    plain = ViTImageProcessor.preprocess

    def brighter(self: Any, images: Any, **options: Any) -> Any:
        return plain(self, [np.minimum(image + 1, 255) for image in images], **options)

    monkeypatch.setattr(ViTImageProcessor, "preprocess", brighter)
    with pytest.raises(InputError, match="does more to an image than resize, crop, rescale and normalize"):
        load_image_processor(recipe(model))


def test_models_of_texts_and_models_without_a_processor_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a bert, which classifies no images"):
        load_image_processor(recipe(tiny_model))
    model = make_image_model(tmp_path / "model")
    (model / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"no usable image processor \(preprocessor_config\.json is needed\)"):
        load_image_processor(recipe(model))


def test_settings_are_those_that_are_on() -> None:
    own = ViTImageProcessor(do_rescale=False, do_normalize=False, size={"height": 4, "width": 6}).to_dict()
    assert settings_of(own) == ImageSettings(size=(4, 6), resample=2)


def test_an_image_costs_as_much_as_it_has_patches() -> None:
    assert patches(ViTConfig(patch_size=16), (224, 224)) == 197
    assert patches(object(), (224, 224)) == 197  # of a convolutional network, about
    assert patches(ViTConfig(patch_size=16), (8, 8)) == 2
