"""Images off the wire: what is taken, what is refused before it costs anything, and the arithmetic to pixel values."""

import base64
import struct
import threading
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tiny_images import picture, png

from bentune.bundle.errors import InvalidRequest, TooLarge
from bentune.bundle.manifest import ImageLimits
from bentune.bundle.processor import ImageSettings
from service.tasks.images import ImageEncoder, Pixels, data_url, decoded, open_image, pixel_values

SETTINGS = ImageSettings(size=(8, 8), rescale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
LIMITS = ImageLimits(max_tokens=5, max_pixels=10_000)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_base64_and_data_urls_give_the_same_values() -> None:
    content = png(picture("left", 1))
    encoder = ImageEncoder(SETTINGS, LIMITS)
    plain = encoder.encode(base64.b64encode(content).decode(), truncate=False)
    assert np.array_equal(plain.values, encoder.encode(data_url(content), truncate=False).values)
    assert (plain.values.dtype, plain.values.shape, len(plain), plain.truncated) == (np.float32, (3, 8, 8), 5, False)
    other = encoder.encode(data_url(png(picture("right", 1))), truncate=False)
    assert plain.identity == encoder.encode(data_url(content), truncate=False).identity != other.identity
    assert encoder.collate([plain, plain])["pixel_values"].shape == (2, 3, 8, 8)


def test_a_jpeg_and_every_mode_of_eight_bits_become_rgb() -> None:
    image = picture("left", 1)
    assert data_url(saved(image, "JPEG")).startswith("data:image/jpeg;base64,")
    for mode in ("1", "L", "LA", "P", "RGBA"):
        assert open_image(saved(image.convert(mode), "PNG"), 10_000).mode == "RGB"
    for mode in ("L", "CMYK"):
        assert open_image(saved(image.convert(mode), "JPEG"), 10_000).mode == "RGB"


def test_a_photograph_is_turned_upright() -> None:
    """Phones write the pixels as the sensor has them.

    They write into the file's EXIF how to turn them.
    """
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    turned = open_image(saved(picture("left", 1), "JPEG", exif=exif), 10_000)
    assert turned.size == (10, 12)
    pixels = np.asarray(turned).mean(axis=2)
    assert pixels[:5].mean() > 1.5 * pixels[-5:].mean()  # the bright left side is on top now


def test_a_bomb_is_refused_by_what_its_header_says() -> None:
    for width, height in ((101, 100), (50_000, 50_000), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(TooLarge, match=r"`inputs\.3` must have at most 10000 pixels"):
            open_image(png_of_size(width, height), 10_000, "`inputs.3`")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no PNG and no JPEG"),
        (b"hello", "no PNG and no JPEG"),
        (saved(picture("left", 1), "GIF"), "no PNG and no JPEG"),  # what only other decoders read
        (png(picture("left", 1))[:200], "damaged or cut off"),
        (saved(picture("left", 1), "JPEG")[:400], "damaged or cut off"),
        (png_of_size(10, 10), "damaged or cut off"),
        (saved(Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16)), "PNG"), "mode I;16: make it 8 bits"),
    ],
)
def test_what_is_no_image_is_refused_and_never_repeated(content: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        open_image(content, 10_000, "`inputs`")
    assert "hello" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "%%%", "data:image/png;base64,!!", "data:text/html;base64,aGVsbG8=", "aGVsbG8"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"`inputs\.1`"):
        ImageEncoder(SETTINGS, LIMITS).encode(text, truncate=True, field="`inputs.1`")


def test_damage_anywhere_is_an_error_of_the_request() -> None:
    """Whatever a decoder raises, the caller is told that the file is wrong."""
    content = png(picture("left", 1))
    random = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(content)
        for place in random.integers(8, len(content), 3):
            broken[place] = random.integers(256)
        try:
            assert open_image(bytes(broken), 10_000).mode == "RGB"
        except (InvalidRequest, TooLarge):
            continue


def test_resize_crop_rescale_and_normalize() -> None:
    image = Image.fromarray(np.full((20, 40, 3), 51, dtype=np.uint8))
    settings = ImageSettings(shortest_edge=10, crop=(8, 6), rescale=1 / 255, mean=(0.1, 0.2, 0), std=(0.5, 1, 2))
    values = pixel_values(image, settings)
    assert values.shape == (3, *settings.shape) == (3, 8, 6)
    assert values[:, 4, 3].tolist() == pytest.approx([0.2, 0, 0.1])
    assert np.array_equal(pixel_values(image, ImageSettings(size=(2, 2))), np.full((3, 2, 2), 51, dtype=np.float32))


def test_the_middle_is_kept() -> None:
    pixels = np.zeros((9, 21, 3), dtype=np.uint8)
    pixels[:, 10] = 255
    values = pixel_values(Image.fromarray(pixels), ImageSettings(shortest_edge=9, crop=(9, 3)))
    assert values[0].tolist() == [[0, 255, 0]] * 9


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"shortest_edge": 9},
        {"size": (8, 8), "shortest_edge": 8},
        {"size": (8, 8), "crop": (9, 8)},
        {"size": (8, 8), "mean": (0, 0, 0)},
        {"size": (8, 8), "mean": (0, 0, 0), "std": (1, 1, 0)},
        {"size": (100_000, 8)},
    ],
)
def test_settings_that_give_no_one_size_or_no_number_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ImageSettings.model_validate(wrong)


def test_several_threads_get_what_one_gets() -> None:
    encoder = ImageEncoder(SETTINGS, LIMITS)
    texts = [data_url(png(picture("left", number))) for number in range(12)]
    alone = [encoder.encode(text, truncate=False).values for text in texts]
    found: dict[int, Pixels] = {}

    def encode(row: int) -> None:
        found[row] = encoder.encode(texts[row], truncate=False)

    threads = [threading.Thread(target=encode, args=(row,)) for row in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[row].values, alone[row]) for row in range(12))


@pytest.mark.parametrize(("width", "height"), [(1, 51), (1, 9_000), (9_000, 1)])
def test_a_long_thin_image_is_refused_for_a_resize_would_make_it_huge(width: int, height: int) -> None:
    with pytest.raises(InvalidRequest, match=f"`inputs`: this image has {width} x {height} pixels.*at most 50 times"):
        open_image(png_of_size(width, height), 10_000)
    settings = ImageSettings(shortest_edge=4096, crop=(8, 8))
    with pytest.raises(TooLarge, match="40 x 1 would become 163840 x 4096"):
        pixel_values(Image.new("RGB", (40, 1)), settings)


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_way_to_hold_a_camera_is_turned_as_pil_turns_it(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    content = saved(picture("left", 1), "JPEG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")
    assert np.array_equal(np.asarray(open_image(content, 10_000)), np.asarray(expected))


def test_what_a_decoder_stumbles_over_is_a_damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any) -> None:
        raise AttributeError("'float' object has no attribute 'encode'")

    monkeypatch.setattr(Image.Image, "getexif", stumble)
    with pytest.raises(InvalidRequest, match="damaged or cut off"):
        open_image(png(picture("left", 1)), 10_000)


def test_decoded_takes_what_data_url_gives() -> None:
    assert decoded(data_url(b"\x89PNG...")) == b"\x89PNG..."
