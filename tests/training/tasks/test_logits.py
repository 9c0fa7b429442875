"""Logits come back in the order of the rows, whatever batches they were computed in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import sentences

from training.recipe.recipe import Recipe
from training.tasks import rows as stored
from training.tasks.base.load import load_base, load_tokenizer
from training.tasks.logits import logits_of, torch_logits
from training.tasks.rows import Rows


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


def test_logits_of_many_rows_are_computed_a_part_at_a_time(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = loaded
    chosen, done = rows(37), []
    expected, _ = torch_logits(model, tokenizer, chosen, 24, done.append)
    np.testing.assert_array_equal(logits_of(model, tokenizer, chosen, 24, done.append), expected)
    monkeypatch.setattr(stored, "PART", 10)
    most: list[int] = []
    original = Rows.encode
    monkeypatch.setattr(Rows, "encode", lambda self, *rest: most.append(len(self)) or original(self, *rest))
    np.testing.assert_allclose(logits_of(model, tokenizer, chosen, 24, done.append), expected, atol=1e-5)
    assert most == [10, 10, 10, 7]
    assert sum(done) == 3 * 37
