"""The application of images behind the routes: uploads, base64, limits, and what is counted of them."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import pytest
from starlette.requests import Request
from starlette.responses import Response
from tiny_images import SIDES, picture, png

from bentune.bundle.manifest import open_bundle
from service.app import Application
from service.http.requests import Incoming
from service.settings import Settings

FILES = {side: png(picture(side, 900)) for side in SIDES}


Ask = Callable[[httpx.Request], Response]


@pytest.fixture
def ask(image_bundle: Path, registry: prometheus_client.CollectorRegistry) -> Ask:
    """Send a request as a client would write it, to an application of its own."""
    settings = Settings(max_inputs=3, max_body_bytes=20_000)

    def send(sent: httpx.Request) -> Response:
        body = sent.read()
        unsent = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if unsent:
                return unsent.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def answer() -> Response:
            application = Application(open_bundle(image_bundle), settings)
            application.start()
            assert application.ready
            raw = [(name.lower().encode(), value.encode()) for name, value in sent.headers.items()]
            scope = {"type": "http", "method": "POST", "path": "/predict", "headers": raw, "query_string": b""}
            try:
                return await asyncio.wait_for(application.answer(Incoming(Request(scope, receive))), 20)
            finally:
                await application.stop()

        return asyncio.run(answer())

    return send


def post(**body: Any) -> httpx.Request:
    return httpx.Request("POST", "http://test/predict", **body)


def read(response: Response) -> Any:
    return response.status_code, json.loads(response.body)


@pytest.mark.parametrize("way", ["base64", "data URL", "body", "form"])
def test_each_way_to_send_an_image_gets_the_same_answer(way: str, ask: Ask) -> None:
    content = FILES["left"]
    text = base64.b64encode(content).decode()
    sent = {
        "base64": post(json={"inputs": text}),
        "data URL": post(json={"inputs": f"data:image/png;base64,{text}"}),
        "body": post(content=content, headers={"content-type": "image/png"}),
        "form": post(files={"file": ("left.png", content)}),
    }[way]
    status, answer = read(ask(sent))
    assert status == 200
    assert answer[0]["label"] == "left"
    assert sum(one["score"] for one in answer) == pytest.approx(1)


@pytest.mark.parametrize("way", ["json", "form"])
def test_several_images_are_answered_in_their_order(
    way: str, ask: Ask, registry: prometheus_client.CollectorRegistry
) -> None:
    texts = [base64.b64encode(FILES[side]).decode() for side in SIDES]
    form = post(files=[("file", (f"{side}.png", FILES[side])) for side in SIDES])
    status, answers = read(ask(post(json={"inputs": texts, "top_k": 1}) if way == "json" else form))
    assert status == 200
    assert [answer[0]["label"] for answer in answers] == list(SIDES)
    assert {len(answer) for answer in answers} == {1 if way == "json" else 3}
    assert registry.get_sample_value("bentune_batch_tokens_sum") == 15  # five patches each


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (post(json={"inputs": "hello"}), 422, "`inputs` must be an image in base64"),
        (post(json={"inputs": [base64.b64encode(FILES["left"]).decode(), "aGVsbG8="]}), 422, "`inputs.1` is no PNG"),
        (post(content=b"hello", headers={"content-type": "image/png"}), 422, "`inputs` is no PNG and no JPEG image"),
        (post(files=[("file", (f"{n}.png", FILES["left"])) for n in range(4)]), 413, "at most 3 files"),
        (post(content=FILES["left"] * 90, headers={"content-type": "image/png"}), 413, "more than 20000 bytes"),
        (post(json={"inputs": ["a", "b", "c", "d"]}), 413, "at most 3 entries"),
    ],
)
def test_what_cannot_be_answered_is_told(
    sent: httpx.Request, status: int, said: str, ask: Ask, registry: prometheus_client.CollectorRegistry
) -> None:
    found, answer = read(ask(sent))
    assert (found, answer["error_type"]) == (status, "Validation")
    assert said in answer["error"]
    assert "hello" not in answer["error"]
    reason = "invalid" if status == 422 else "too_large"
    assert registry.get_sample_value("bentune_rejected_total", {"reason": reason}) == 1


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(ask: Ask) -> None:
    from PIL import Image

    large = png(Image.new("1", (5001, 5000)), optimize=True)
    assert len(large) < 20_000
    status, answer = read(ask(post(content=large, headers={"content-type": "image/png"})))
    assert status == 413
    assert answer["error"].startswith("`inputs` must have at most 25000000 pixels, this image has 5001 x 5000")


def test_info_says_what_it_takes(image_bundle: Path, registry: prometheus_client.CollectorRegistry) -> None:
    info = Application(open_bundle(image_bundle), Settings()).info()
    assert (info["task"], info["inputs"]) == ("image-classification", "image")
    assert (info["limits"]["max_pixels"], info["limits"]["max_tokens"]) == (25_000_000, 5)
