"""Other views of training images: turned, cut out, mirrored; what is drawn depends on seed, epoch and row alone."""

import math
from typing import TYPE_CHECKING

import numpy as np

from training.recipe.rows_settings import AugmentSettings

if TYPE_CHECKING:
    from PIL.Image import Image


def augmented(image: "Image", settings: AugmentSettings, generator: np.random.Generator) -> "Image":
    """One view of an RGB image. With the settings' defaults it is the image itself.

    Turned by up to `rotation` degrees either way, what comes into the picture in the mean colour of its border. Cut to
    a part of at least `crop` of its area, which is then as large as the image was: the random resized crop of Szegedy
    et al. 2015, https://arxiv.org/abs/1409.4842, but for its change of proportions. Mirrored each way with probability
    1/2.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    # All are drawn in any case, so that one setting does not change what another draws.
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
