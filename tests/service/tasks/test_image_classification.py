"""The task of images: its bundle loads, serves and proves itself as one of texts does."""

import base64
from pathlib import Path

import numpy as np
import pytest
from tiny_images import picture, png

from bentune.bundle.errors import BundleError
from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import Columns, ImageLimits, Limits, open_bundle
from bentune.bundle.plan import CPU, FP32, scores_key
from bentune.bundle.processor import ImageSettings, ProcessorSettings
from bentune.bundle.targets.one_label import OneLabel
from service.engine.golden import replay
from service.engine.predictor import Predictor
from service.tasks.decoding import Decoder
from service.tasks.image_classification import ImageClassification
from service.tasks.images import ImageEncoder
from service.tasks.registry import task_of

TARGET = OneLabel(labels=["left", "right"])


def test_a_bundle_of_images_has_its_own_encoder_settings_and_limits(image_bundle: Path) -> None:
    bundle = open_bundle(image_bundle)
    task = task_of(bundle)
    assert isinstance(task, ImageClassification)
    assert isinstance(task.encoder, ImageEncoder)
    assert (task.inputs, task.pairs, task.comparable) == ("image", False, False)
    assert bundle.manifest.limits == ImageLimits(max_tokens=5, max_pixels=25_000_000)
    assert task.limits == {"max_pixels": 25_000_000}
    assert isinstance(bundle.processor, ImageSettings)
    assert not (image_bundle / "processor/tokenizer.json").exists()


def test_the_feed_has_the_names_of_the_graph(image_bundle: Path) -> None:
    task = task_of(open_bundle(image_bundle))
    text = base64.b64encode(png(picture("left", 0))).decode()
    batch = task.collate([task.encoder.encode(text, truncate=True)] * 3)
    assert set(batch) == {"pixel_values"}
    assert {len(values) for values in batch.values()} == {3}


def test_requests_are_decoded_in_a_thread_that_ends(image_bundle: Path) -> None:
    task = task_of(open_bundle(image_bundle))
    intake = task.intake(10)
    assert isinstance(intake, Decoder)
    assert intake.watched
    intake.close()


def test_the_settings_and_limits_of_texts_are_refused() -> None:
    settings, limits = ImageSettings(size=(8, 8)), ImageLimits(max_tokens=5, max_pixels=9)
    for given in ((ProcessorSettings(pad_id=0), limits), (settings, Limits(max_tokens=5))):
        with pytest.raises(BundleError, match="image-classification takes images, but the bundle has no settings"):
            ImageClassification.open(Path("processor"), *given, TARGET, Columns(text="image"))
    assert ImageClassification.open(Path("processor"), settings, limits, TARGET, Columns(text="image")).target is TARGET


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
