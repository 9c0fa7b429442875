"""Task `image-classification`: PNG and JPEG images, uploaded or in base64."""

import math
from pathlib import Path
from typing import Any, ClassVar, Self

from bentune.bundle.errors import BundleError
from bentune.bundle.manifest import Bundle, Columns, ImageLimits, Limits
from bentune.bundle.processor import ImageSettings, InputSettings
from bentune.bundle.targets.target import Target
from service.tasks.decoding import Decoder
from service.tasks.images import PILLOW_REQUIREMENT, PIXEL_BYTES, ImageEncoder
from service.tasks.task import Intake, Task


class ImageClassification(Task):
    """Classifier of images."""

    name: ClassVar = "image-classification"
    summary: ClassVar = "Classify images, in base64 or as files."
    comparable: ClassVar = False  # its training rows are identified by pixels, not by texts
    requirements: ClassVar = (PILLOW_REQUIREMENT,)
    # One image, or the files of a form, each under any name.
    body: ClassVar[dict[str, Any]] = {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}
        },
    }

    def __init__(self, encoder: ImageEncoder, target: Target) -> None:
        super().__init__(encoder, target)
        self._images = encoder

    @classmethod
    def open(cls, root: Path, settings: InputSettings, limits: Limits, target: Target, columns: Columns) -> Self:
        """Return the task of these settings and limits.

        Raises BundleError when Pillow is missing, or the bundle does not give the size of images. No file of `root` is
        read, because the settings are the whole processor. `columns` is ignored: an image has no pair.
        """
        del columns
        if not isinstance(settings, ImageSettings) or not isinstance(limits, ImageLimits):
            raise BundleError(
                f"{root}: {cls.name} takes images, but the bundle has no settings for them; package it again"
            )
        return cls(ImageEncoder(settings, limits), target)

    @classmethod
    def waiting_token_bytes(cls, bundle: Bundle) -> int:
        """Return a token's share of an image's pixel values, float32, in bytes."""
        if not isinstance(bundle.processor, ImageSettings):
            return super().waiting_token_bytes(bundle)
        height, width = bundle.processor.shape
        return math.ceil(3 * 4 * height * width / bundle.manifest.limits.max_tokens)

    @classmethod
    def encoding_bytes(cls, bundle: Bundle) -> int:
        """Return the memory of the largest image while it is decoded, in bytes."""
        limits = bundle.manifest.limits
        return limits.max_pixels * PIXEL_BYTES if isinstance(limits, ImageLimits) else 0

    @property
    def inputs(self) -> str:
        """Kind of one input: `image`."""
        return "image"

    @property
    def limits(self) -> dict[str, int]:
        """Largest number of pixels of an image as it is sent."""
        return {"max_pixels": self._images.limits.max_pixels}

    def intake(self, most_waiting: int) -> Intake:
        """Return the decoder of requests' images."""
        return Decoder(self._images, most_waiting)
