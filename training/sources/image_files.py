"""Images of a source: reading with limits, checking, and the digest of their pixels."""

import hashlib
from pathlib import Path

from bentune.bundle.errors import InvalidRequest, TooLarge
from bentune.bundle.processor import MOST_PIXELS
from service.tasks.images import DATA_URL, data_url, decoded, open_image

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_BYTES = 20_000_000
MOST_CHARACTERS = 1000
"""Longest path, in characters."""
IMAGES_AT_ONCE = 50
"""Number of rows of a pool that are in memory at once: each may have MOST_BYTES."""


def checked_image(given: object) -> tuple[str, str]:
    """Return the data URL of an image and a digest of its decoded pixels.

    `given` is the bytes of a file or a data URL. The same pixels have the same digest in any file format. Raises
    ValueError for an image that cannot be used.
    """
    if not isinstance(given, str | bytes):
        raise ValueError(f"there is no image ({type(given).__name__})")
    if len(given) > MOST_BYTES * (1 if isinstance(given, bytes) else 2):
        raise ValueError(f"the image has more than {MOST_BYTES} bytes")
    try:
        content = given if isinstance(given, bytes) else decoded(given, "the image")
        image = open_image(content, MOST_PIXELS, "the image")
    except TooLarge:
        raise ValueError(f"the image has more than {MOST_PIXELS} pixels") from None
    except InvalidRequest as error:
        raise ValueError(str(error)) from None
    digest = hashlib.sha256(f"{image.width} {image.height} ".encode() + image.tobytes()).hexdigest()
    return data_url(content), digest


def image_of(value: object, folder: Path) -> object:
    """Return a cell of the image column, with a path replaced by its file.

    Bytes and a data URL are returned as they are. A path below `folder` is replaced by the content of its file. In
    Parquet files of hubs a cell is a struct of bytes and path. Raises ValueError for a path that cannot be read.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str) or DATA_URL.match(value[:64]):
        return value
    path = file_of(value, folder)
    try:
        return path.read_bytes()
    except OSError:
        raise ValueError("the file cannot be read") from None


def file_of(value: str, folder: Path) -> Path:
    """Return the file of a path in a table.

    Raises ValueError when it is absent, outside `folder` or too large.
    """
    if not value.strip():
        raise ValueError("there is no path to an image")
    if len(value) > MOST_CHARACTERS:
        raise ValueError("the path is too long")
    try:
        path = (folder / value.strip()).resolve()
        there, size = path.is_file(), path.stat().st_size if path.is_file() else 0
    except (OSError, RuntimeError):  # a name that is too long, no permission, links in a circle
        raise ValueError("the file cannot be read") from None
    if not path.is_relative_to(folder.resolve()):
        raise ValueError("the path leads outside the table's folder")
    if path.suffix.lower() not in SUFFIXES or not there:
        raise ValueError(f"there is no such file ({', '.join(SUFFIXES)})")
    if size > MOST_BYTES:
        raise ValueError(f"the image has more than {MOST_BYTES} bytes")
    return path
