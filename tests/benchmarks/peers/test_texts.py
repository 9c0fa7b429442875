"""The texts of the benchmarks: cut so that no server computes more than another."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.peers.texts import Texts, texts_of
from bentune.bundle.manifest import open_bundle


@pytest.mark.parametrize("paragraphs", [False, True])
def test_lengths_are_bounded_and_long_ones_are_as_long_as_can_be(
    tiny_run: Path, tiny_bundle: Path, paragraphs: bool
) -> None:
    labels = open_bundle(tiny_bundle).manifest.labels
    texts: Texts = texts_of(tiny_run, labels, 8, 14, paragraphs=paragraphs)
    tokenizer = Tokenizer.from_file(str(tiny_run / "export/processor/tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def lengths(some: list[str]) -> list[int]:
        return [len(tokenizer.encode(text)) for text in some]

    assert max(lengths(texts.usual)) <= 8
    assert max(lengths(texts.short)) <= 20
    assert set(lengths(texts.long)) == {14}
    assert len(texts.rows) == len(texts.labels) == len(texts.short)
    assert set(texts.labels) <= set(labels)
    assert texts.mean_tokens == pytest.approx(sum(lengths(texts.usual)) / len(texts.usual))
