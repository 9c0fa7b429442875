"""Token ids are the Hugging Face tokenizer's, whatever tokenizer.json says about padding; batches are padded right."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from bentune.bundle.errors import BundleError, TooLarge
from bentune.bundle.processor import ProcessorSettings
from service.tasks.tokenizer import TextTokenizer, Tokens, pad

MAX_TOKENS = 16
WORDS = "the cat sat on a mat near big dogs and small birds that sing all day long".split()
RIGHT = ProcessorSettings(pad_id=0)


def bert(directory: Path) -> Any:
    from transformers import BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz0123456789.,!?"]
    vocabulary += [f"##{character}" for character in "abcdefghijklmnopqrstuvwxyz0123456789"]
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return BertTokenizerFast(vocab_file=str(directory / "vocab.txt"), model_max_length=MAX_TOKENS)


def roberta(directory: Path) -> Any:
    from transformers import RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator([" ".join(WORDS)] * 20, vocab_size=320, special_tokens=special)
    trained.save_model(str(directory))
    return RobertaTokenizerFast(str(directory / "vocab.json"), str(directory / "merges.txt"))


@pytest.fixture(scope="module", params=[bert, roberta], ids=["bert", "roberta"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Hugging Face tokenizer, saved to the directory that its name_or_path says."""
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer = request.param(directory)
    tokenizer.save_pretrained(directory)
    tokenizer.name_or_path = str(directory)
    return tokenizer


def file_of(reference: Any) -> Path:
    return Path(reference.name_or_path) / "tokenizer.json"


def settings_of(reference: Any, side: str = "right") -> ProcessorSettings:
    return ProcessorSettings.model_validate(
        {"pad_id": reference.pad_token_id, "truncation_side": side, "padding_side": reference.padding_side}
    )


def expected(reference: Any, text: str, pair: str | None, **more: Any) -> tuple[list[int], list[int]]:
    encoding = reference(text, pair, return_token_type_ids=True, **more)
    return encoding["input_ids"], encoding["token_type_ids"]


PIECES = [*WORDS, "[SEP]", "</s>", "<mask>", "DOGS", "é", "犬", "123.4", " ", "\0"]
# Not empty: the service refuses such a text, and Hugging Face takes a pair with one for a single text.
texts = st.text(min_size=1, max_size=60) | st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map(" ".join)


@given(text=texts, pair=st.none() | texts, side=st.sampled_from(["right", "left"]), data=st.data())
@examples(150)
def test_ids_are_the_hugging_face_tokenizers(
    reference: Any, text: str, pair: str | None, side: str, data: st.DataObject
) -> None:
    max_tokens = data.draw(st.integers(5, 24))
    ours = TextTokenizer(file_of(reference), settings_of(reference, side), max_tokens)
    reference.truncation_side = side
    whole = expected(reference, text, pair, truncation=False)
    cut = ours.encode(text, pair, truncate=True)
    assert (cut.ids, cut.type_ids) == expected(reference, text, pair, truncation=True, max_length=max_tokens)
    assert cut.truncated == (len(whole[0]) > max_tokens)
    if cut.truncated:
        with pytest.raises(TooLarge):
            ours.encode(text, pair, truncate=False)
    else:
        tokens = ours.encode(text, pair, truncate=False)
        assert (tokens.ids, tokens.type_ids, tokens.truncated) == (*whole, False)


def test_what_tokenizer_json_says_about_padding_and_truncation_is_replaced(reference: Any, tmp_path: Path) -> None:
    plain = Tokenizer.from_file(str(file_of(reference)))
    plain.enable_padding(length=40, pad_id=reference.pad_token_id, direction="left")
    plain.enable_truncation(6, direction="left")
    plain.save(str(tmp_path / "tokenizer.json"))
    reference.truncation_side = "right"
    ours = TextTokenizer(tmp_path / "tokenizer.json", settings_of(reference), MAX_TOKENS)
    for words in (3, 9, 30):
        text = " ".join((WORDS * 3)[:words])
        ids, _ = expected(reference, text, None, truncation=True, max_length=MAX_TOKENS)
        assert ours.encode(text, truncate=True).ids == ids
        if words == 9:
            assert ours.encode(text, truncate=False).ids == ids
            assert len(ids) > 6


def test_too_many_tokens_are_refused_with_both_numbers_and_without_the_text(reference: Any) -> None:
    ours = TextTokenizer(file_of(reference), settings_of(reference), MAX_TOKENS)
    text = " ".join(WORDS * 2)
    count = len(expected(reference, text, None, truncation=False)[0])
    with pytest.raises(TooLarge) as caught:
        ours.encode(text, truncate=False, field="`inputs.3`")
    assert str(caught.value).startswith(f"`inputs.3` must have at most 16 tokens, this one has {count}")
    assert "truncate" in str(caught.value)
    assert not set(WORDS) & {word for word in str(caught.value).split() if word not in ("this", "one", "a")}


def test_exactly_the_limit_is_allowed(reference: Any) -> None:
    text = " ".join(WORDS[:5])
    count = len(expected(reference, text, None, truncation=False)[0])
    tokens = TextTokenizer(file_of(reference), settings_of(reference), count).encode(text, truncate=False)
    assert (len(tokens), tokens.truncated) == (count, False)
    with pytest.raises(TooLarge):
        TextTokenizer(file_of(reference), settings_of(reference), count - 1).encode(text, truncate=False)


@pytest.mark.parametrize("max_tokens", [1, 2])
def test_a_limit_below_the_special_tokens_is_refused(reference: Any, max_tokens: int) -> None:
    """The library would then cut nothing, without a word."""
    with pytest.raises(BundleError, match=f"adds 2 special tokens to a text, max_tokens is {max_tokens}"):
        TextTokenizer(file_of(reference), settings_of(reference), max_tokens)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": 3}'])
def test_what_is_no_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        TextTokenizer(tmp_path / "tokenizer.json", RIGHT, 8)


def test_threads_share_one_tokenizer(reference: Any) -> None:
    ours = TextTokenizer(file_of(reference), settings_of(reference), MAX_TOKENS)
    generator = random.Random(0)
    sentences = [" ".join(generator.choices(WORDS, k=generator.randint(1, 40))) for _ in range(200)]
    alone = [ours.encode(text, truncate=True) for text in sentences]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: ours.encode(text, truncate=True), sentences)) == alone


def test_a_long_text_does_not_hold_up_other_threads(reference: Any) -> None:
    """While one thread tokenizes, others go on: the event loop is one of them."""
    ours = TextTokenizer(file_of(reference), settings_of(reference), MAX_TOKENS)
    text = " ".join(WORDS) * 20_000
    done = threading.Event()

    def encode() -> None:
        ours.encode(text, truncate=True)
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    turns = 0
    while not done.wait(0.001):
        turns += 1
    thread.join()
    # With the interpreter lock held there would be none but the first.
    assert turns > 5


ids_strategy = st.lists(st.integers(1, 1000), min_size=1, max_size=9)


@given(st.lists(ids_strategy, min_size=1, max_size=6), st.sampled_from(["left", "right"]), st.integers(0, 5))
def test_padding_fills_one_side_and_the_mask_marks_what_is_real(rows: list[list[int]], side: str, pad_id: int) -> None:
    processor = ProcessorSettings.model_validate({"pad_id": pad_id, "pad_type_id": 3, "padding_side": side})
    feed = pad([Tokens(ids=row, type_ids=[1] * len(row), truncated=False) for row in rows], processor)
    longest = max(map(len, rows))
    assert set(feed) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(array.shape == (len(rows), longest) and array.dtype == np.int64 for array in feed.values())
    for number, row in enumerate(rows):
        missing = longest - len(row)
        for name, real, filler in (
            ("input_ids", row, pad_id),
            ("attention_mask", [1] * len(row), 0),
            ("token_type_ids", [1] * len(row), 3),
        ):
            filled = [filler] * missing
            wanted = filled + real if side == "left" else real + filled
            assert feed[name][number].tolist() == wanted


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_the_hugging_face_tokenizers(reference: Any, side: str) -> None:
    reference.padding_side, reference.truncation_side = side, "right"
    batch = [" ".join(WORDS[:count]) for count in (1, 7, 3, 16)]
    theirs = reference(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_token_type_ids=True)
    processor = settings_of(reference).model_copy(update={"pad_type_id": reference.pad_token_type_id})
    ours = TextTokenizer(file_of(reference), processor, MAX_TOKENS)
    feed = pad([ours.encode(text, truncate=True) for text in batch], processor)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert feed[name].tolist() == theirs[name]


def test_special_tokens_in_a_text_are_split_where_training_split_them(reference: Any) -> None:
    """The setting is not in tokenizer.json.

    Without it, a text with the token's letters would be read as two texts.
    """
    text = f"a cat {reference.sep_token} on a mat"
    settings = settings_of(reference).model_copy(update={"split_special_tokens": True})
    whole, split = (reference(text, split_special_tokens=one)["input_ids"] for one in (False, True))
    assert TextTokenizer(file_of(reference), settings, 40).encode(text, None, truncate=True).ids == split != whole
    assert TextTokenizer(file_of(reference), settings_of(reference), 40).encode(text, None, truncate=True).ids == whole


def test_unknown_tokens_are_counted_where_the_tokenizer_has_one(tmp_path: Path) -> None:
    bert(tmp_path).save_pretrained(tmp_path)
    text = "the \u72ac sat \u72ac"
    for unknown_id, unknown in ((1, 2), (None, 0)):
        settings = ProcessorSettings(pad_id=0, unknown_id=unknown_id)
        found = TextTokenizer(tmp_path / "tokenizer.json", settings, MAX_TOKENS).encode(text, truncate=True)
        assert (len(found), found.unknown) == (6, unknown)
        assert found.features == {"token_length": 6, "truncated": False, "unknown_tokens": unknown / 6}
