"""Unknown tokens and truncated rows, counted as the tokenizer reads them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from training.pipeline.results import TokenCoverage
from training.tasks.rows import RowFile, open_rows
from training.tasks.text import coverage as module
from training.tasks.text.coverage import coverage, unknown_id

WORDS = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "good": 3, "bad": 4}


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", model_max_length=8)


def rows(path: Path, texts: list[str], pairs: list[str] | None = None) -> RowFile:
    table = {
        "text": pa.array(texts),
        "text_pair": pa.array(pairs or [None] * len(texts), pa.string()),
        "label": pa.array([0] * len(texts)),
    }
    pq.write_table(pa.table(table), path / "train.parquet")
    return open_rows(path / "train.parquet")


def test_tokens_are_counted_without_special_ones_and_rows_that_are_cut(tmp_path: Path) -> None:
    found = coverage(rows(tmp_path, ["good good \u597d", "bad", "\u4f60 \u597d " * 5]), tokenizer(), 8, seed=1)
    assert found == TokenCoverage(rows=3, tokens=14, unknown=11, truncated=1, longest=12)
    assert found.unknown_share == pytest.approx(11 / 14)
    assert found.truncated_share == pytest.approx(1 / 3)


def test_both_texts_of_a_pair_count(tmp_path: Path) -> None:
    found = coverage(rows(tmp_path, ["good"], ["bad \u597d"]), tokenizer(), 6, seed=1)
    assert found == TokenCoverage(rows=1, tokens=3, unknown=1, truncated=0, longest=6)


def test_the_sample_is_bounded_in_rows_and_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = rows(tmp_path, ["good"] * 500)
    monkeypatch.setattr(module, "MOST_ROWS", 300)
    assert coverage(file, tokenizer(), 8, seed=1).rows == 300
    monkeypatch.setattr(module, "MOST_CHARACTERS", 500)
    assert coverage(file, tokenizer(), 8, seed=1).rows == 200


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (models.WordLevel(WORDS, unk_token="[UNK]"), 0),
        (models.WordPiece(WORDS, unk_token="[UNK]"), 0),
        (models.Unigram([("<pad>", 0.0), ("<unk>", 0.0), ("a", -1.0)], unk_id=1), 1),
        (models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0, byte_fallback=True), None),
        (models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>"), 1),
        (models.BPE({"a": 0}, []), None),
    ],
)
def test_a_tokenizer_that_reads_bytes_knows_every_text(model: models.Model, expected: int | None) -> None:
    assert unknown_id(Tokenizer(model)) == expected


def test_the_sample_is_the_same_for_the_same_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["good " * int(length) for length in np.random.default_rng(0).integers(1, 30, 400)]
    monkeypatch.setattr(module, "MOST_ROWS", 50)
    file = rows(tmp_path, texts)
    assert coverage(file, tokenizer(), 8, seed=1) == coverage(file, tokenizer(), 8, seed=1)
    assert coverage(file, tokenizer(), 8, seed=1) != coverage(file, tokenizer(), 8, seed=2)
