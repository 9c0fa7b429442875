"""Tokenized rows on disk are what they would be in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import sentences
from transformers import AutoTokenizer, DataCollatorWithPadding

from training.tasks.rows import Rows
from training.tasks.text import tokenized as tokens
from training.tasks.text.tokenized import lengths_of, tokenized


def rows(count: int, pairs: bool) -> Rows:
    texts = [text for text, _ in sentences(count)]
    return Rows(texts, texts[::-1] if pairs else None, np.arange(count))


@pytest.mark.parametrize("pairs", [True, False])
def test_batches_are_those_of_rows_in_memory(
    pairs: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "AT_ONCE", 8)
    tokenizer, given = AutoTokenizer.from_pretrained(tiny_model), rows(30, pairs)
    found = tokenized(iter([given]), tokenizer, 16, tmp_path / "tokens/rows.arrow")
    plain = Dataset.from_dict({**given.encode(tokenizer, 16), "labels": given.labels.tolist()})
    assert len(found) == 30
    assert lengths_of(found).tolist() == [len(ids) for ids in plain["input_ids"]]
    assert (lengths_of(found).max(), lengths_of(found).dtype) == (16, np.int32)
    collate = DataCollatorWithPadding(tokenizer)
    order = [5, 29, 0, 5, 17]
    one, other = (collate([dataset[row] for row in order]) for dataset in (found, plain))
    assert one.keys() == other.keys() == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    for name in one:
        assert one[name].dtype == other[name].dtype == torch.int64
        assert torch.equal(one[name], other[name])
    # Four bytes an id and one a type, which is what is mapped.
    assert (tmp_path / "tokens/rows.arrow").stat().st_size < 5 * lengths_of(found).sum() + 6_000


def test_lengths_are_in_the_order_of_what_was_selected(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer, given = AutoTokenizer.from_pretrained(tiny_model), rows(40, False)
    found = tokenized([given], tokenizer, 24, tmp_path / "rows.arrow")
    order = np.argsort(lengths_of(found), kind="stable")
    assert lengths_of(found.select(order)).tolist() == sorted(lengths_of(found).tolist())
