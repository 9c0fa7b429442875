"""Tasks on texts: the bundle's tokenizer is opened, and long requests are tokenized beside the event loop."""

import asyncio
import threading
from pathlib import Path

import pytest

from bentune.bundle.errors import BundleError, InvalidRequest, TooLarge
from bentune.bundle.manifest import Columns, ImageLimits, Limits, open_bundle
from bentune.bundle.processor import ImageSettings
from bentune.bundle.targets.one_label import OneLabel
from service.http.requests import InputRow
from service.tasks.registry import task_of
from service.tasks.text import INLINE_CHARACTERS, Tokenizing
from service.tasks.text_classification import TextClassification
from service.tasks.tokenizer import TextTokenizer, Tokens

TARGET = OneLabel(labels=["cat", "dog"])


class Fake:
    """A tokenizer of a token a character, which notes its threads."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool, field: str = "") -> Tokens:
        self.threads.append(threading.get_ident())
        if text == "too long" and not truncate:
            raise TooLarge(f"{field} is too long")
        ids = [0] * len((text + (text_pair or "")).strip())
        return Tokens(ids, ids, truncated=False)


def ask(fake: Fake, rows: list[InputRow], *, single: bool = False, truncate: bool = False) -> list[int]:
    intake = Tokenizing(fake)  # type: ignore[arg-type]
    assert not intake.watched
    found = asyncio.run(intake.encode(rows, truncate=truncate, single=single, deadline=0.0))
    intake.close()
    return [len(one) for one in found]


def test_a_bundle_of_texts_has_its_tokenizer(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    task = task_of(bundle)
    assert isinstance(task, TextClassification)
    assert isinstance(task.encoder, TextTokenizer)
    assert task.encoder.max_tokens == bundle.manifest.limits.max_tokens == 24
    assert type(bundle.manifest.limits) is Limits
    assert (task.inputs, task.pairs, task.comparable, task.limits, task.body) == ("text", False, True, {}, {})
    assert task.target == bundle.manifest.target
    batch = task.collate([task.encoder.encode("a cat", truncate=True)] * 3)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"}
    assert {len(values) for values in batch.values()} == {3}


def test_a_column_of_second_texts_makes_pairs(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    columns = Columns(text="one", text_pair="two")
    task = TextClassification.open(tiny_bundle / "processor", bundle.processor, bundle.manifest.limits, TARGET, columns)
    assert (task.inputs, task.pairs) == ("pair", True)


def test_the_settings_of_images_are_refused() -> None:
    limits = ImageLimits(max_tokens=5, max_pixels=9)
    with pytest.raises(BundleError, match="holds the processor of an image model, and text-classification takes texts"):
        TextClassification.open(Path("x"), ImageSettings(size=(8, 8)), limits, TARGET, Columns(text="text"))


def test_rows_come_in_their_order_and_the_wrong_one_is_named() -> None:
    assert ask(Fake(), [("one", None), ("a", "pair")]) == [3, 5]
    with pytest.raises(InvalidRequest, match=r"`inputs\.1` has no tokens: it must hold more than blanks"):
        ask(Fake(), [("a", None), ("  ", None)])
    with pytest.raises(InvalidRequest, match="`inputs` has no tokens"):
        ask(Fake(), [("  ", None)], single=True)
    with pytest.raises(TooLarge, match=r"`inputs\.1` is too long"):
        ask(Fake(), [("a", None), ("too long", None)])
    assert ask(Fake(), [("too long", None)], truncate=True) == [8]


def test_much_text_is_tokenized_in_a_thread_and_little_on_the_event_loop() -> None:
    half = "a" * (INLINE_CHARACTERS // 2)
    little, much = Fake(), Fake()
    ask(little, [(half, half)])
    assert little.threads == [threading.get_ident()]
    ask(much, [(half, half), ("b", None)])
    assert len(set(much.threads)) == 1
    assert much.threads[0] != threading.get_ident()
