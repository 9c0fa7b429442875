"""Answers by which a server passes as a version: a small HTTP server gives right and wrong ones."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import serving

from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.plan import scores_key
from rollout.release.check_pods import LOOKS, TRIES, check_server


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


class Service:
    """Answers as the bundle does; `change` spoils an answer, `contents` says which version each look meets."""

    def __init__(
        self, bundle: Bundle, change: Callable[[int, dict[str, float]], Any] = lambda _, scores: scores
    ) -> None:
        self.bundle, self.change = bundle, change
        self.contents: list[str] = []
        self.looks = 0
        self.texts = {row.text: number for number, row in enumerate(bundle.golden)}

    async def __call__(self, request: web.Request) -> web.Response:
        plan = self.bundle.plan
        if request.path == "/info":
            content = self.contents.pop(0) if self.contents else self.bundle.content
            self.looks += 1
            info = {"name": "tiny", "version": "1", "content": content}
            return web.json_response(info | {"plan": {"variant": plan.variant, "provider": plan.provider}})
        number = self.texts[(await request.json())["inputs"]]
        expected = self.bundle.golden[number].scores[scores_key(plan.variant, plan.provider)]
        found = self.change(number, dict(zip(self.bundle.manifest.labels, expected, strict=True)))
        if isinstance(found, web.Response):
            return found
        return web.json_response([{"label": label, "score": score} for label, score in found.items()])


def ask(service: Service, *, bundle: bool = True) -> str:
    with serving(service) as url:
        content = service.bundle.content
        return check_server(url, content, service.bundle if bundle else None, pause=lambda _: None).problem


def swapped(scores: list[float]) -> list[float]:
    """Swap the probabilities of the most likely label and the least likely one."""
    ends = {max(scores): min(scores), min(scores): max(scores)}
    return [ends.get(score, score) for score in scores]


def test_the_version_itself_passes(bundle: Bundle) -> None:
    service = Service(bundle)
    assert ask(service) == ""
    assert service.looks == LOOKS


def test_old_pods_that_still_answer_are_waited_for(bundle: Bundle) -> None:
    service = Service(bundle)
    # A look that meets the new version is not enough, while another meets the old one.
    service.contents = ["old", bundle.content, "old", "old"]
    assert ask(service) == ""
    assert service.looks == 4 + LOOKS
    service.contents = ["old"] * 1000
    assert "does not serve the version: /info shows tiny:1, content old" in ask(service)
    assert service.looks == 4 + LOOKS + TRIES


def test_wrong_scores_are_found(bundle: Bundle) -> None:
    rows = len(bundle.golden)

    def spoiled(number: int, scores: dict[str, float]) -> dict[str, float]:
        return dict(zip(scores, swapped([*scores.values()]), strict=True)) if number == 2 else scores

    found = ask(Service(bundle, spoiled))
    assert found.startswith(f"1 of {rows} golden rows are answered wrongly: row 2 is off by ")
    nan = Service(
        bundle, lambda _, scores: web.Response(text=json.dumps([{"label": x, "score": "NaN"} for x in scores]))
    )
    assert f"{rows} of {rows} golden rows" in ask(nan)
    failing = Service(bundle, lambda *_: web.Response(status=500))
    assert "row 0: HTTPStatusError" in ask(failing)
    unknown = Service(bundle, lambda _, scores: {f"{label}x": score for label, score in scores.items()})
    assert "row 0: an answer is not a list of the target's labels" in ask(unknown)
    # Without the bundle there are no rows to ask with.
    assert ask(failing, bundle=False) == ""


def test_nobody_there_is_said(bundle: Bundle) -> None:
    assert check_server("http://127.0.0.1:9", bundle.content, bundle, pause=lambda _: None).problem == (
        "http://127.0.0.1:9 does not serve the version: /info: ConnectError"
    )

    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=503)

    with serving(broken) as url:
        assert "/info answered 503" in check_server(url, bundle.content, bundle, pause=lambda _: None).problem


def test_a_busy_server_is_asked_again_after_as_long_as_it_says(bundle: Bundle) -> None:
    busy = iter([429, 503, 429])
    waits: list[float] = []

    def sometimes(_: int, scores: dict[str, float]) -> Any:
        status = next(busy, None)
        return scores if status is None else web.Response(status=status, headers={"Retry-After": "3"})

    with serving(Service(bundle, sometimes)) as url:
        assert check_server(url, bundle.content, bundle, pause=waits.append).problem == ""
    assert waits == [3.0, 3.0, 3.0]
    with serving(Service(bundle, lambda *_: web.Response(status=429, headers={"Retry-After": "nan"}))) as url:
        assert "row 0: HTTPStatusError" in check_server(url, bundle.content, bundle, pause=waits.append).problem
    assert max(waits) <= 5.0


def test_any_of_the_bundles_variants_may_answer(bundle: Bundle) -> None:
    """Nodes differ in what they can run.

    Behind a Service, each request may meet another node.
    """
    key = scores_key(bundle.plan.variant, bundle.plan.provider)
    moved = {"elsewhere": swapped(bundle.golden[0].scores[key])}
    first = bundle.golden[0].model_copy(update={"scores": {key: bundle.golden[0].scores[key]} | moved})
    bundle = replace(bundle, golden=(first, *bundle.golden[1:]))

    def other(number: int, scores: dict[str, float]) -> dict[str, float]:
        return dict(zip(scores, moved["elsewhere"], strict=True)) if number == 0 else scores

    assert ask(Service(bundle, other)) == ""
