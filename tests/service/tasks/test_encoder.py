"""A bundle of images loads, serves and proves itself as one of texts does."""

import base64
from pathlib import Path

import numpy as np
import pytest
from tiny_images import picture, png

from bentune.bundle.errors import BundleError
from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import ImageLimits, Limits, open_bundle
from bentune.bundle.plan import CPU, FP32, scores_key
from bentune.bundle.processor import ImageSettings
from service.engine.golden import replay
from service.engine.predictor import Predictor
from service.tasks.encoder import encoder_of, feed, tokenizer_of
from service.tasks.image import ImageEncoder
from service.tasks.text import TextTokenizer


def test_each_task_has_its_own(tiny_bundle: Path, image_bundle: Path) -> None:
    texts, images = open_bundle(tiny_bundle), open_bundle(image_bundle)
    assert isinstance(encoder_of(texts), TextTokenizer)
    assert isinstance(encoder_of(images), ImageEncoder)
    assert type(texts.manifest.limits) is Limits
    assert images.manifest.limits == ImageLimits(max_tokens=5, max_pixels=25_000_000)
    assert isinstance(images.processor, ImageSettings)
    assert not (image_bundle / "processor/tokenizer.json").exists()
    with pytest.raises(BundleError, match="takes images"):
        tokenizer_of(images)


def test_feeds_have_the_names_of_the_graph(tiny_bundle: Path, image_bundle: Path) -> None:
    for root, text, names in (
        (tiny_bundle, "a cat", {"input_ids", "attention_mask", "token_type_ids"}),
        (image_bundle, base64.b64encode(png(picture("left", 0))).decode(), {"pixel_values"}),
    ):
        encoder = encoder_of(open_bundle(root))
        batch = feed([encoder.encode(text, truncate=True)] * 3, encoder.settings)
        assert set(batch) == names
        assert {len(values) for values in batch.values()} == {3}


def test_golden_images_give_their_scores_and_other_images_do_not(image_bundle: Path) -> None:
    bundle = open_bundle(image_bundle)
    predictor = Predictor.from_bundle(bundle, Cpu(model="a test", isa=(), cores=1))
    key = scores_key(FP32, CPU)
    assert replay(predictor, bundle.golden, key).passed
    swapped = [row.model_copy(update={"text": bundle.golden[-1].text}) for row in bundle.golden]
    assert not replay(predictor, swapped, key).passed


def test_a_predictor_scores_images_it_never_saw(image_bundle: Path) -> None:
    bundle = open_bundle(image_bundle)
    predictor = Predictor.from_bundle(bundle, Cpu(model="a test", isa=(), cores=1))
    texts = [(base64.b64encode(png(picture(side, 900))).decode(), None) for side in bundle.manifest.labels]
    assert [answer[0]["label"] for answer in predictor.score(texts)] == bundle.manifest.labels
    assert np.isclose(sum(one["score"] for one in predictor.score(texts[:1])[0]), 1)


def test_limits_of_images_are_refused_for_texts_and_wanted_for_images(tiny_bundle: Path, image_bundle: Path) -> None:
    texts, images = (open_bundle(root).manifest for root in (tiny_bundle, image_bundle))
    with pytest.raises(ValueError, match="max_pixels"):
        type(texts).model_validate(texts.model_dump() | {"limits": {"max_tokens": 5, "max_pixels": 9}})
    with pytest.raises(ValueError, match="max_pixels"):
        type(images).model_validate(images.model_dump() | {"limits": {"max_tokens": 5}})
