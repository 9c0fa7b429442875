"""Both kinds of side give the same probabilities; what a service may answer instead is refused in a line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from http_server import serving

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.manifest import open_bundle
from bentune.bundle.plan import scores_key
from bentune.bundle.targets.target import Prediction
from rollout.compare import models as sides
from rollout.compare.models import BundleScorer, open_side, size_of

TEXTS = [("the cat and a dog", None), ("bread with cheese", None), ("a saw", None)]


def info_of(root: Path) -> dict[str, Any]:
    bundle = open_bundle(root)
    return {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "content": bundle.content,
        "inputs": "text",
        "labels": bundle.manifest.labels,
        "plan": {"variant": "fp32", "provider": "CPUExecutionProvider"},
        "limits": {"max_inputs": 2},
        "more": "than is read",
    }


class Service:
    """A Bentune service's two routes over the real predictor; what it says can be changed."""

    def __init__(self, root: Path) -> None:
        self.info: Any = info_of(root)
        self.scorer = BundleScorer(open_bundle(root))
        self.sizes: list[int] = []
        self.busy = 0
        self.predict: Any = None

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/info":
            return web.json_response(self.info)
        inputs = json.loads(await request.read())["inputs"]
        if self.busy:
            self.busy -= 1
            return web.Response(status=429, headers={"Retry-After": "0"})
        self.sizes.append(len(inputs))
        if len(inputs) > 2:
            return web.Response(status=413)
        if self.predict is not None:
            return web.json_response(self.predict)
        return web.json_response(self.scorer.score([(text, None) for text in inputs]))


@pytest.fixture
def service(tiny_bundle: Path) -> Service:
    return Service(tiny_bundle)


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    with serving(service) as url:
        yield url


def test_a_bundle_by_tag_and_by_directory(tiny_tag: str, tiny_bundle: Path) -> None:
    with open_side(tiny_tag) as by_tag, open_side(str(tiny_bundle)) as by_directory:
        scores = by_tag.score(TEXTS)
        np.testing.assert_array_equal(scores, by_directory.score(TEXTS))
        assert scores.shape == (3, 3)
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert by_tag.judged.tag == tiny_tag
        assert (by_tag.live, by_tag.pairs) == (False, False)
        assert size_of(by_tag) == sum(file.stat().st_size for file in tiny_bundle.glob("model/fp32.onnx*"))
        best = [by_tag.target.labels[column] for column in scores.argmax(axis=1)]
        assert best == ["animal", "food", "tool"]


def test_a_service_gives_what_its_bundle_gives(tiny_tag: str, service: Service, address: str) -> None:
    service.busy = 2
    with open_side(address) as live, open_side(tiny_tag) as bundle:
        service.sizes.clear()  # of the golden rows
        np.testing.assert_allclose(live.score(TEXTS), bundle.score(TEXTS), atol=1e-6)
        assert service.sizes == [3, 1, 2]  # too many at once were sent in halves
        assert (live.live, live.most_texts, live.judged.address) == (True, 2, address)
        assert live.judged.tag == tiny_tag
        assert live.bundle is not None  # it is in the store, with the same content
        assert size_of(live) == size_of(bundle)


def test_a_service_whose_bundle_is_not_here(service: Service, address: str) -> None:
    service.info["content"] = "0" * 64
    with open_side(address) as live:
        assert live.bundle is None
        assert size_of(live) is None
    service.info |= {"name": "unknown"}
    with open_side(address) as live:
        assert live.bundle is None


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ([], "content"),
        ({"name": "../../etc"}, "name"),
        ({"content": "short"}, "content"),
        ({"labels": ["only"]}, "labels"),
        ({"inputs": "sound"}, "inputs"),
        ({"plan": {"variant": "../up", "provider": "x"}}, "plan.variant"),
    ],
)
def test_what_is_no_info(service: Service, address: str, info: Any, said: str) -> None:
    service.info = info if isinstance(info, list) else service.info | info
    with (
        pytest.raises(BentuneError, match=f"/info is not that of a Bentune service of this version .{said}"),
        open_side(address),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "not a list of the same length"),
        ([[]], "does not have a probability for each"),
        ([[{"label": "animal", "score": 1.0}]], "does not have a probability for each"),
        ([[{"label": name, "score": 0.9} for name in ("animal", "food", "tool")]], "does not have a probability"),
        ([[{"label": "fish", "score": 1.0}]], "not a list of the target"),
        ([[{"label": ["animal"], "score": 1.0}]], "not a list of the target"),
        ([None], "not a list of the target"),
        ([[{"label": "animal", "score": "x"}]], "not a list of the target"),
    ],
)
def test_what_is_no_answer(service: Service, address: str, answer: Any, said: str) -> None:
    with open_side(address) as live:
        service.predict = answer
        with pytest.raises(BentuneError, match=said):
            live.score(TEXTS[:1])


def test_a_service_that_is_not_what_its_info_says(service: Service, address: str) -> None:
    """Another model answers behind the same /info.

    A verdict against it would be about nothing.
    """
    scores = service.scorer.score
    service.scorer.score = lambda texts: [turned(one) for one in scores(texts)]  # type: ignore[method-assign]
    with (
        pytest.raises(BentuneError, match="golden row 0 of that is off by .* another model answers"),
        open_side(address),
    ):
        pass


def turned(answer: list[Prediction]) -> list[Prediction]:
    """The same scores for other labels."""
    labels = [one["label"] for one in answer]
    return [{"label": label, "score": one["score"]} for label, one in zip(labels[1:] + labels[:1], answer, strict=True)]


def test_an_answer_without_end_is_cut(service: Service, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_side(address) as live:
        monkeypatch.setattr(sides, "MAX_ANSWER_BYTES", 1000)
        service.predict = ["x" * 5000]
        with pytest.raises(BentuneError, match="too long or too slow"):
            live.score(TEXTS[:1])


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(BentuneError, match=r"no answer \(ConnectError\)"), open_side("http://127.0.0.1:9"):
        pass
    with pytest.raises(InputError, match="is no address"), open_side("http://"):
        pass
    with pytest.raises(InputError, match=re.escape("is not in the BentoML model store")), open_side("no-such-model"):
        pass


def test_versions_of_an_image_classifier_are_not_compared(image_bundle: Path, service: Service, address: str) -> None:
    """Trained rows of an image classifier are identified by their pixels.

    Looked up by its text, each would pass for a new one.
    """
    service.info |= {"inputs": "image"}
    for name in (str(image_bundle), address):
        with pytest.raises(InputError, match="takes no texts, and versions of such models cannot be compared yet"):
            open_side(name).__enter__()


def test_golden_rows_get_their_golden_scores(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    scorer = BundleScorer(bundle)
    answers = scorer.score([(row.text, row.text_pair) for row in bundle.golden])
    assert scorer.digest == bundle.digest
    key = scores_key(bundle.plan.variant, bundle.plan.provider)
    for row, answer in zip(bundle.golden, answers, strict=True):
        scores = {prediction["label"]: prediction["score"] for prediction in answer}
        assert [scores[label] for label in bundle.manifest.labels] == pytest.approx(row.scores[key], abs=1e-4)
        assert answer == sorted(answer, key=lambda prediction: -prediction["score"])
