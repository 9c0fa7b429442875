"""Image processor of the base model, checked against the service's implementation of its steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError
from transformers import AutoConfig, AutoImageProcessor

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_json
from bentune.bundle.manifest import ImageLimits
from bentune.bundle.processor import MOST_PIXELS, ImageSettings
from service.tasks.images import FloatArray, ImageEncoder, Pixels, decoded, open_image, pixel_values

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "preprocessor_config.json"
LIMITS = "limits.json"
PROBES = ((37, 53), (301, 170), (64, 64))
"""Heights and widths of the images for the comparison before training."""
PATCH = 16
"""Edge in pixels of the patch that counts as one token, for models without patches."""


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """Image counterpart of a tokenizer: `own` is the model's processor in transformers, `limits` are the service's.

    Evaluation uses `own`. Training and the service use the service's implementation, which is checked against it.
    """

    own: Any
    settings: ImageSettings
    limits: ImageLimits

    @classmethod
    def of(cls, place: str | Path, **options: Any) -> "ImageProcessor":
        """Load the processor from a model's files.

        Raises InputError for steps that the service does not support.
        """
        own = AutoImageProcessor.from_pretrained(place, use_fast=False, **options)
        try:
            settings = settings_of(own.to_dict())
        except (ValidationError, TypeError, ValueError, KeyError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise InputError(f"model: {place}: {FILE} has no steps that can be served: {said}") from None
        config = AutoConfig.from_pretrained(place, **options)
        processor = cls(own, settings, ImageLimits(max_tokens=patches(config, settings.shape), max_pixels=MOST_PIXELS))
        processor.require_same(str(place))
        return processor

    def pixels(self, image: "Image") -> FloatArray:
        """Compute the pixel values of an RGB image, float32 [3, height, width]."""
        values = self.own([np.asarray(image)], input_data_format="channels_last", return_tensors="np")
        result: FloatArray = values["pixel_values"][0].astype(np.float32)
        return result

    def read(self, text: str) -> "Image":
        """Decode the RGB image of a data URL."""
        return open_image(decoded(text), self.limits.max_pixels)

    def encode(self, texts: Sequence[str]) -> list[Pixels]:
        """Encode images, given as data URLs, with the model's own processor."""
        return [Pixels(self.pixels(self.read(text)), self.limits.max_tokens) for text in texts]

    def served(self) -> ImageEncoder:
        """Build the service's encoder with these settings."""
        return ImageEncoder(self.settings, self.limits)

    def save_pretrained(self, directory: Path) -> None:
        """Write the model's own processor, under transformers' file name, and the limits."""
        directory.mkdir(parents=True, exist_ok=True)
        self.own.save_pretrained(directory)
        write_json(directory / LIMITS, self.limits)

    @classmethod
    def saved(cls, directory: Path) -> "ImageProcessor":
        """Read the files of `save_pretrained`."""
        own = AutoImageProcessor.from_pretrained(directory, use_fast=False)
        limits = ImageLimits.model_validate_json((directory / LIMITS).read_bytes())
        return cls(own, settings_of(own.to_dict()), limits)

    def require_same(self, name: str) -> None:
        """Raise InputError where the service's pixel values differ from the processor's."""
        from PIL import Image

        random = np.random.default_rng(0)
        for height, width in PROBES:
            image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
            own, served = self.pixels(image), pixel_values(image, self.settings)
            if own.shape != served.shape or not np.array_equal(own, served):
                raise InputError(
                    f"model: {name}: its {type(self.own).__name__} does more to an image than resize, crop, rescale "
                    "and normalize, which is what can be served; choose another model"
                )


def settings_of(own: dict[str, Any]) -> ImageSettings:
    """Read the steps from a saved processor of transformers.

    Raises ValueError or ValidationError.
    """
    if not own.get("do_resize"):
        raise ValueError("do_resize is not set, and images must come out at one size")
    size = own["size"]
    crop = own["crop_size"] if own.get("do_center_crop") else None
    normalize = own.get("do_normalize")
    return ImageSettings(
        size=(size["height"], size["width"]) if "height" in size else None,
        shortest_edge=size.get("shortest_edge"),
        resample=int(own["resample"]),
        crop=(crop["height"], crop["width"]) if crop else None,
        rescale=own["rescale_factor"] if own.get("do_rescale") else None,
        mean=tuple(own["image_mean"]) if normalize else None,
        std=tuple(own["image_std"]) if normalize else None,
    )


def patches(config: Any, shape: tuple[int, int]) -> int:
    """Count an image's tokens: its patches and one class token.

    `shape` is (height, width) in pixels.
    """
    given = getattr(config, "patch_size", None)
    edge = given if isinstance(given, int) and given > 0 else PATCH
    rows, columns = (max(1, size // edge) for size in shape)
    return rows * columns + 1
