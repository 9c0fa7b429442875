"""Images that are uploaded as files become the inputs of the JSON shape."""

import asyncio
from typing import Any

import httpx
import pytest

from bentune.bundle.errors import InvalidRequest, RequestError, TooLarge
from service.http.uploads import is_upload, uploaded
from service.tasks.images import decoded

PNG = b"\x89PNG of a test"


def form(*parts: tuple[str, Any]) -> tuple[str, bytes]:
    request = httpx.Request("POST", "http://test", files=list(parts))
    return request.headers["content-type"], request.read()


def read(content_type: str, body: bytes, most: int = 2) -> str | list[str]:
    return asyncio.run(uploaded(content_type, body, most))


def test_a_body_and_a_file_of_a_form_are_one_image() -> None:
    assert (
        read("image/png", PNG) == read(*form(("file", ("a.png", PNG)))) == "data:image/png;base64,iVBORyBvZiBhIHRlc3Q="
    )


def test_several_files_are_a_list_in_their_order() -> None:
    inputs = read(*form(("a", ("a.png", PNG)), ("b", ("b.jpg", b"other"))))
    assert isinstance(inputs, list)
    assert [decoded(one) for one in inputs] == [PNG, b"other"]


def test_too_many_files_are_refused() -> None:
    files = [("file", (f"{number}.png", PNG)) for number in range(4)]
    with pytest.raises(TooLarge, match="at most 3 files, this one has 4"):
        read(*form(*files), most=3)
    with pytest.raises(RequestError):
        read(*form(*files, *files), most=3)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([("top_k", (None, b"2"))], "files only"),
        ([("file", ("a.png", PNG)), ("top_k", (None, b"2"))], "files only"),
        ([], "cannot be read|holds no file"),
    ],
)
def test_a_form_that_is_not_files_alone_is_refused(parts: list[Any], said: str) -> None:
    content_type, body = form(*parts) if parts else ("multipart/form-data; boundary=x", b"--x--\r\n")
    with pytest.raises(InvalidRequest, match=said):
        read(content_type, body)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_junk_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest, match="the form"):
        read(content_type, b"junk")


def test_only_images_and_forms_are_uploads() -> None:
    assert is_upload("image/jpeg")
    assert is_upload("multipart/form-data; boundary=x")
    assert not is_upload("application/json")
    assert not is_upload("")


def test_a_large_file_is_not_written_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp of a pod is a small volume in memory, which the metrics are in as well."""
    monkeypatch.setattr("tempfile._get_default_tempdir", lambda: "/nowhere")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    content = b"\x89PNG" + bytes(2_000_000)
    inputs = read(*form(("file", ("a.png", content))))
    assert isinstance(inputs, str)
    assert decoded(inputs) == content


def test_the_kind_of_a_body_is_known_in_any_case() -> None:
    assert is_upload("Image/PNG")
    assert is_upload("Multipart/Form-Data; boundary=X")
    assert read("Image/PNG", PNG) == read("image/png", PNG)
