"""An image is known by its pixels, and what cannot be one is said in words."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from tiny_images import picture, png

from service.tasks.images import data_url, decoded
from training.sources import image_files
from training.sources.image_files import checked_image, file_of, image_of


def test_the_same_picture_has_the_same_digest_in_any_format() -> None:
    image = picture("left", 1)
    bmp_like = png(image, compress_level=0)
    url, digest = checked_image(png(image))
    assert decoded(url) == png(image)
    assert checked_image(bmp_like)[1] == digest
    assert checked_image(data_url(bmp_like))[1] == digest
    assert checked_image(png(image.convert("RGBA")))[1] == digest
    assert checked_image(png(picture("left", 2)))[1] != digest
    assert checked_image(png(image.transpose(Image.Transpose.ROTATE_90)))[1] != digest


def test_a_picture_of_other_proportions_is_another() -> None:
    grey = Image.new("RGB", (6, 4), (9, 9, 9))
    assert checked_image(png(grey))[1] != checked_image(png(grey.resize((4, 6))))[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, r"there is no image \(NoneType\)"),
        (3, "there is no image"),
        (b"", "no PNG and no JPEG"),
        ("not base64!", "base64"),
        (png(picture("left", 1))[:100], "damaged or cut off"),
    ],
)
def test_what_is_no_image_is_refused(given: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checked_image(given)


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = png(picture("left", 1))
    monkeypatch.setattr(image_files, "MOST_PIXELS", 119)
    with pytest.raises(ValueError, match="more than 119 pixels"):
        checked_image(content)
    monkeypatch.setattr(image_files, "MOST_BYTES", len(content) - 1)
    with pytest.raises(ValueError, match=f"more than {len(content) - 1} bytes"):
        checked_image(content)


def test_a_tables_values_are_paths_bytes_or_a_struct_of_both(tmp_path: Path) -> None:
    content = png(picture("left", 1))
    (tmp_path / "a.png").write_bytes(content)
    assert image_of("a.png", tmp_path) == content
    assert image_of(content, tmp_path) == content
    assert image_of(data_url(content), tmp_path) == data_url(content)
    assert image_of({"bytes": content, "path": None}, tmp_path) == content
    assert image_of({"bytes": None, "path": "a.png"}, tmp_path) == content


@pytest.mark.parametrize(
    "path", ["", "  ", "../secret.png", "/etc/passwd", "none.png", "notes.txt", "x" * 5000, "a\0.png"]
)
def test_a_path_leads_to_an_image_below_the_table(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(BytesIO(b"x").getvalue())
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(ValueError):
        file_of(path, folder)


def test_a_name_that_no_file_can_have_and_links_in_a_circle_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    for path in ("x" * 300 + ".png", "a.png"):
        with pytest.raises(ValueError, match="cannot be read|no such file"):
            file_of(path, tmp_path)
