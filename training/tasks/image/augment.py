"""Augmentation of training images by rotation, crop and flip, which depends on seed, epoch and row alone."""

import math
from typing import TYPE_CHECKING

import numpy as np

from training.recipe.train import AugmentSettings

if TYPE_CHECKING:
    from PIL.Image import Image


def augmented(image: "Image", settings: AugmentSettings, generator: np.random.Generator) -> "Image":
    """Draw one view of an RGB image; with the settings' defaults it is unchanged.

    The image is rotated by up to `rotation` degrees in either direction and filled with the mean color of its border.
    It is cropped to at least `crop` of its area and resized to its former size: the random resized crop of Szegedy et
    al. 2015, https://arxiv.org/abs/1409.4842, without a change of proportions. It is flipped in each direction of
    `flip` with probability 1/2.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    # All numbers are always drawn, so that one setting does not change the draws of another.
    angle, area, left, top, horizontal, vertical = generator.random(6)
    if settings.rotation:
        degrees = settings.rotation * (2 * angle - 1)
        image = image.rotate(degrees, Resampling.BILINEAR, fillcolor=_border(image))
    if settings.crop < 1:
        side = math.sqrt(settings.crop + (1 - settings.crop) * area)
        width, height = side * image.width, side * image.height
        x, y = left * (image.width - width), top * (image.height - height)
        image = image.resize(image.size, Resampling.BILINEAR, box=(x, y, x + width, y + height))
    if settings.flip in ("horizontal", "both") and horizontal < 0.5:
        image = ImageOps.mirror(image)
    if settings.flip in ("vertical", "both") and vertical < 0.5:
        image = ImageOps.flip(image)
    return image


def _border(image: "Image") -> tuple[int, ...]:
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(edge.mean(axis=0).round().astype(int).tolist())
