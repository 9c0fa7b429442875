"""Behaviour that all tasks share: requests read, answers ranked, golden rows compared, observations made."""

import math
from pathlib import Path

import numpy as np
import pytest

from bentune.bundle.errors import InvalidRequest
from bentune.bundle.manifest import open_bundle
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from service.http.requests import PredictRequest
from service.tasks.registry import TASKS
from service.tasks.task import WAITING_TOKEN
from service.tasks.text_classification import TextClassification
from service.tasks.tokenizer import Tokens

TARGET = OneLabel(labels=["a", "b", "c"])
TASK = TextClassification(None, TARGET)  # type: ignore[arg-type]
PAIRS = TextClassification(None, TARGET, pairs=True)  # type: ignore[arg-type]


def asked(inputs: object, **more: object) -> PredictRequest:
    return PredictRequest.model_validate({"inputs": inputs} | more)


def test_inputs_are_read_as_texts_or_as_pairs() -> None:
    assert TASK.read(asked("one"), 5) == ([("one", None)], True)
    assert TASK.read(asked(["one", "two"]), 5) == ([("one", None), ("two", None)], False)
    assert PAIRS.read(asked(["one", "two"]), 5) == ([("one", "two")], True)
    with pytest.raises(InvalidRequest, match="takes a pair"):
        PAIRS.read(asked("one"), 5)


def test_an_answer_has_scores_or_outputs_and_only_the_first() -> None:
    output = np.array([1, 3, 2], dtype=np.float32)
    scores = TARGET.scores(output)
    found = TASK.answer(output, scores, asked("x"))
    assert [one["label"] for one in found] == ["b", "c", "a"]
    assert sum(one["score"] for one in found) == pytest.approx(1)
    raw = TASK.answer(output, scores, asked("x", raw_scores=True, top_k=2))
    assert raw == [{"label": "b", "score": 3.0}, {"label": "c", "score": 2.0}]


def test_scores_are_as_far_from_those_of_a_golden_row_as_the_label_that_differs_most() -> None:
    scores = np.array([0.5, 0.25, 0.25], dtype=np.float32)
    assert TASK.difference(scores, [0.5, 0.0, 0.5]) == 0.25
    assert TASK.difference(scores, [0.5, 0.5]) == math.inf
    assert TASK.difference(scores, []) == math.inf
    assert math.isnan(TASK.difference(scores, [math.nan, 0.25, 0.25]))


@pytest.mark.parametrize("target", [TARGET, ManyLabels(labels=["a", "b", "c"])])
def test_every_feature_of_the_baseline_is_observed(target: OneLabel) -> None:
    task = TextClassification(None, target)  # type: ignore[arg-type]
    found = task.observe(Tokens([1] * 7, [0] * 7, truncated=False), np.array([0.25, 0.5, 0.25], dtype=np.float32))
    assert found.features.keys() == {"token_length", "truncated", "unknown_tokens", *target.features}
    assert (found.features["token_length"], found.confidence) == (7, 0.5)
    assert {*found.labels} <= {*target.counted}


def test_each_task_says_what_memory_it_takes(tiny_bundle: Path, image_bundle: Path) -> None:
    texts, images = open_bundle(tiny_bundle), open_bundle(image_bundle)
    task = TASKS["text-classification"]
    assert (task.waiting_token_bytes(texts), task.encoding_bytes(texts)) == (WAITING_TOKEN, 0)
    task = TASKS["image-classification"]
    # Three channels of 8 x 8 float32, shared among five patches; 12 bytes of each of the most pixels.
    assert (task.waiting_token_bytes(images), task.encoding_bytes(images)) == (154, 300_000_000)
