"""Logits come back in the order of the rows, whatever batches they were computed in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import sentences

from training.base import load_base, load_tokenizer
from training.logits import torch_logits
from training.recipe import Recipe
from training.rows import Rows


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> tuple[Any, Any]:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "task": "text-classification",
            "model": str(tiny_model),
            "data": {"source": "s"},
            "max_tokens": 24,
        }
    )
    return load_base(recipe, ["a", "b", "c"]).model, load_tokenizer(recipe)


def rows(count: int, pairs: bool = False) -> Rows:
    texts = [text for text, _ in sentences(count)]
    return Rows(texts, texts[::-1] if pairs else None, np.zeros(count, dtype=np.int64))


@pytest.mark.parametrize("pairs", [False, True])
def test_the_order_is_that_of_the_rows(pairs: bool, loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    chosen, done = rows(37, pairs), []
    model.train()  # dropout would show
    logits, ids = torch_logits(model, tokenizer, chosen, 24, done.append, batch_size=8)
    assert not model.training
    assert logits.shape == (37, 3)
    assert logits.dtype == np.float32
    assert sum(done) == 37
    for row, text in enumerate(chosen.texts):
        pair = chosen.pairs[row] if chosen.pairs is not None else None
        encoded = tokenizer(text, pair, truncation=True, max_length=24, return_tensors="pt")
        assert ids[row] == encoded["input_ids"][0].tolist()
        with torch.inference_mode():
            assert np.allclose(logits[row], model(**encoded).logits[0].numpy(), atol=1e-5)
    assert max(map(len, ids)) == 24
