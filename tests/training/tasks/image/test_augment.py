"""Other views of training images: bounded by the settings, and decided by the generator alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_images import picture

from training.recipe.train import AugmentSettings
from training.tasks.image.augment import augmented


def view(seed: int = 0, **settings: object) -> np.ndarray:
    image = augmented(picture("left", 1), AugmentSettings.model_validate(settings), np.random.default_rng(seed))
    return np.asarray(image)


ORIGINAL = np.asarray(picture("left", 1))


def test_nothing_is_changed_unless_asked() -> None:
    assert np.array_equal(view(), ORIGINAL)
    assert not AugmentSettings().changes_images
    assert AugmentSettings(rotation=1).changes_images
    assert AugmentSettings(crop=0.9).changes_images
    assert AugmentSettings(flip="both").changes_images


@pytest.mark.parametrize(
    ("flip", "views"),
    [
        ("horizontal", [ORIGINAL, ORIGINAL[:, ::-1]]),
        ("vertical", [ORIGINAL, ORIGINAL[::-1]]),
        ("both", [ORIGINAL, ORIGINAL[:, ::-1], ORIGINAL[::-1], ORIGINAL[::-1, ::-1]]),
    ],
)
def test_each_way_of_mirroring_comes_as_often(flip: str, views: list[np.ndarray]) -> None:
    found = [
        next(n for n, one in enumerate(views) if np.array_equal(one, view(seed, flip=flip))) for seed in range(400)
    ]
    counts = np.bincount(found, minlength=len(views))
    assert counts.sum() == 400
    assert counts.min() > 0.7 * 400 / len(views)


def test_a_turn_is_by_at_most_so_many_degrees_either_way() -> None:
    """The edge between the two halves of a picture is turned.

    The corners do not come into it.
    """
    pixels = np.zeros((101, 101, 3), dtype=np.uint8)
    pixels[:, 50:] = 255
    angles = []
    for seed in range(60):
        turned = augmented(Image.fromarray(pixels), AugmentSettings(rotation=30), np.random.default_rng(seed))
        edge = (np.asarray(turned)[[30, 70], 25:76, 0] < 128).sum(axis=1)
        angles.append(np.degrees(np.arctan((float(edge[0]) - float(edge[1])) / 40)))
    assert 24 < max(angles) < 33
    assert -33 < min(angles) < -24


def test_a_crop_keeps_at_least_its_share_of_the_area_and_the_size() -> None:
    """A picture whose values are its places shows which part of it was cut out."""
    ramp = np.linspace(0, 250, 100).astype(np.uint8)
    image = Image.fromarray(
        np.stack([np.tile(ramp, (100, 1)), np.tile(ramp[:, None], (1, 100)), np.zeros((100, 100))], 2).astype(np.uint8)
    )
    areas, lefts = [], []
    for seed in range(200):
        cut = np.asarray(augmented(image, AugmentSettings(crop=0.25), np.random.default_rng(seed))).astype(float)
        assert cut.shape == (100, 100, 3)
        width, height = (np.ptp(cut[:, :, channel]) / 250 for channel in (0, 1))
        areas.append(width * height)
        lefts.append(cut[0, 0, 0] / 250)
        assert width == pytest.approx(height, abs=0.03)
    assert 0.22 < min(areas) < 0.3
    assert 0.9 < max(areas) <= 1
    assert max(lefts) > 0.3


@given(seed=st.integers(0, 2**31), rotation=st.floats(0, 180), crop=st.floats(0.05, 1))
def test_the_same_draws_give_the_same_view(seed: int, rotation: float, crop: float) -> None:
    one, other = (view(seed, rotation=rotation, crop=crop, flip="both") for _ in range(2))
    assert np.array_equal(one, other)
    assert (one.shape, one.dtype) == (ORIGINAL.shape, np.uint8)


def test_one_setting_does_not_change_what_another_draws() -> None:
    mirrored = [np.array_equal(view(seed, flip="horizontal"), ORIGINAL[:, ::-1]) for seed in range(50)]
    for seed, expected in enumerate(mirrored):
        turned = view(seed, flip="horizontal", rotation=5)
        plain = view(seed, rotation=5)
        assert np.array_equal(turned, plain[:, ::-1]) == expected
