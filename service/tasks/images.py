"""Pixel values of an untrusted image that is sent as base64 or a data URL."""

import base64
import binascii
import hashlib
import re
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bentune.bundle.errors import BundleError, InvalidRequest, RequestError, TooLarge
from bentune.bundle.manifest import ImageLimits
from bentune.bundle.processor import MOST_PIXELS, TOKEN_LENGTH, ImageSettings

if TYPE_CHECKING:  # only bundles of images need Pillow
    from PIL.Image import Image, Transpose

PILLOW_REQUIREMENT = "pillow>=11,<14"
"""Package for pip that decodes images: the extra `images`, and part of a Bento whose model takes them."""
FORMATS = ("PNG", "JPEG")
DATA_URL = re.compile(r"data:image/(?:png|jpeg|jpg);base64,", re.ASCII)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""PIL modes of eight bits per channel. From the other modes it clips brighter values."""
PIXEL_BYTES = 12
"""Bytes of memory that decoding takes per pixel: the image, its upright or RGB copy, and the buffer of a progressive
JPEG (25 million pixels: 192 to 287 MB measured)."""
MOST_STRETCHED = 50
"""Largest ratio of an image's sides: enlarging the shorter side enlarges the longer one too."""
ORIENTATION = 0x0112
"""EXIF tag of the image's orientation."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Encoded image: `values` is float32 [3, height, width], and it costs as much as `patches` tokens.

    `decoded` is the number of pixels in its file.
    """

    values: FloatArray
    patches: int
    truncated: bool = False
    decoded: int = 0

    @property
    def identity(self) -> list[int]:
        """Digest of the values; different values give a different number."""
        return [int.from_bytes(hashlib.sha256(self.values.tobytes()).digest()[:8])]

    @property
    def features(self) -> dict[str, float]:
        """Its patches, which count as tokens."""
        return {TOKEN_LENGTH: self.patches}

    def __len__(self) -> int:
        return self.patches


class ImageEncoder:
    """Image processor of the bundle. It gives the values of the model's own processor (`verify` compares them)."""

    def __init__(self, settings: ImageSettings, limits: ImageLimits) -> None:
        """Raise BundleError when Pillow is not installed."""
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            raise BundleError(f"images are decoded by Pillow: `pip install '{PILLOW_REQUIREMENT}'`") from None
        self.settings = settings
        self.limits = limits
        # One at a time: a small file may hold a large image.
        self._decoding = threading.Lock()

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool, field: str = "`inputs`") -> Pixels:  # noqa: ARG002
        """Encode one image, base64 or a data URL; safe to call from several threads.

        `truncate` is ignored: an image is never cut. Raises InvalidRequest and TooLarge, which name `field`.
        """
        content = decoded(text, field)
        with self._decoding:
            image = open_image(content, self.limits.max_pixels, field)
            values = pixel_values(image, self.settings)
        return Pixels(values, self.limits.max_tokens, decoded=image.width * image.height)

    def collate(self, batch: Sequence[Pixels]) -> dict[str, FloatArray]:
        """Return `pixel_values`, float32 [images, 3, height, width]."""
        return {"pixel_values": np.stack([one.values for one in batch])}


def data_url(content: bytes) -> str:
    """Return an image file as a data URL (RFC 2397).

    It can be stored wherever a text can.
    """
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def decoded(text: str, field: str = "`inputs`") -> bytes:
    """Return the bytes of a file that was sent as base64 or a data URL.

    Raises InvalidRequest, which names `field`.
    """
    start = DATA_URL.match(text[:64])
    try:
        return base64.b64decode(text[start.end() if start else 0 :], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{field} must be an image in base64, or a data URL of a PNG or JPEG image") from None


def open_image(content: bytes, max_pixels: int, field: str = "`inputs`") -> "Image":
    """Open a PNG or JPEG file as an RGB image, upright.

    Raises InvalidRequest and TooLarge, which name `field`. The size of the image is checked before a pixel is decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here
            image: Image.Image = Image.open(BytesIO(content), formats=FORMATS)
            _require_size(image.width, image.height, max_pixels, field)
            if image.mode not in MODES:
                raise InvalidRequest(f"{field}: this image has the mode {image.mode}: make it 8 bits a channel")
            image.load()
            turn = _upright(image.getexif().get(ORIENTATION))
            if turn is not None:
                image = image.transpose(turn)
            return image if image.mode == "RGB" else image.convert("RGB")
    except RequestError:
        raise
    except UnidentifiedImageError:
        raise InvalidRequest(f"{field} is no PNG and no JPEG image") from None
    except Image.DecompressionBombError:
        raise TooLarge(f"{field} must have at most {max_pixels} pixels: make it smaller") from None
    except Exception:
        # PIL's decoders raise errors of any type for truncated or malicious files.
        raise InvalidRequest(f"{field} is an image that is damaged or cut off") from None


def pixel_values(image: "Image", settings: ImageSettings) -> FloatArray:
    """Return the pixel values of an RGB image, float32 [3, height, width].

    The arithmetic is that of transformers' image processors. Raises TooLarge when the resized image would have more
    than MOST_PIXELS.
    """
    from PIL.Image import Resampling

    if settings.size is not None:
        height, width = settings.size
    else:
        height, width = _keeping_proportions(image.height, image.width, settings.shortest_edge or 0)
    if height * width > MOST_PIXELS:
        raise TooLarge(f"an image of {image.width} x {image.height} would become {width} x {height}: cut it first")
    array: npt.NDArray[np.uint8] = np.asarray(image.resize((width, height), Resampling(settings.resample)))
    if settings.crop is not None:
        top, left = (array.shape[0] - settings.crop[0]) // 2, (array.shape[1] - settings.crop[1]) // 2
        array = array[top : top + settings.crop[0], left : left + settings.crop[1]]
    values: FloatArray = array.astype(np.float32)
    if settings.rescale is not None:
        values = (array.astype(np.float64) * settings.rescale).astype(np.float32)
    if settings.mean is not None and settings.std is not None:
        mean: FloatArray = np.array(settings.mean, dtype=np.float32)
        std: FloatArray = np.array(settings.std, dtype=np.float32)
        values = (values - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _require_size(width: int, height: int, max_pixels: int, field: str) -> None:
    if width * height > max_pixels:
        raise TooLarge(
            f"{field} must have at most {max_pixels} pixels, this image has {width} x {height}: make it smaller"
        )
    if max(width, height) > MOST_STRETCHED * min(width, height):
        raise InvalidRequest(
            f"{field}: this image has {width} x {height} pixels, and one side may be at most {MOST_STRETCHED} times "
            "the other: cut it"
        )


def _upright(orientation: object) -> "Transpose | None":
    """Return the turn that makes an image upright, by the EXIF standard, or None."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _keeping_proportions(height: int, width: int, shortest: int) -> tuple[int, int]:
    if width <= height:
        return int(shortest * height / width), shortest
    return shortest, int(shortest * width / height)
