"""Logits of a torch classifier for rows, for the evaluation and the parity chain."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from bentune.bundle.arrays import Logits
from training.tasks.image.processor import ImageProcessor
from training.tasks.image.rows import image_logits
from training.tasks.rows import Rows, of_size

Processor: TypeAlias = PreTrainedTokenizerBase | ImageProcessor
"""Tokenizer or image processor."""


def torch_logits(
    model: torch.nn.Module | PreTrainedModel,
    tokenizer: Processor,
    rows: Rows,
    max_tokens: int,
    advance: Callable[[int], None],
    batch_size: int = 16,
) -> tuple[Logits, list[list[int]]]:
    """Compute logits and each row's token ids, in the order of the rows.

    The logits are float32 [rows, labels]. For images a digest of the pixels replaces the ids. Rows of similar length
    share a batch. The model is set to eval mode, because dropout would make comparisons fail.
    """
    if isinstance(tokenizer, ImageProcessor):
        return image_logits(model, tokenizer, rows, advance, batch_size)
    encoded = rows.encode(tokenizer, max_tokens)
    ids: list[list[int]] = encoded["input_ids"]
    order = sorted(range(len(rows)), key=lambda row: len(ids[row]))
    parts: list[Logits] = []
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        parts.append(_forward(model, tokenizer, encoded, chosen))
        advance(len(chosen))
    logits = np.concatenate(parts)
    result = np.empty_like(logits)
    result[order] = logits
    return result, ids


def token_ids(processor: Processor, texts: list[str], max_tokens: int) -> list[list[int]]:
    """Tokenize texts, each truncated to `max_tokens`.

    The result is empty for an image processor.
    """
    if isinstance(processor, ImageProcessor) or not texts:
        return []
    ids: list[list[int]] = processor(texts, truncation=True, max_length=max_tokens)["input_ids"]
    return ids


def one_batch(processor: Processor, rows: Rows, max_tokens: int) -> dict[str, torch.Tensor]:
    """Build the model's inputs for rows of one length."""
    if isinstance(processor, ImageProcessor):
        values = [one.values for one in processor.encode(rows.texts)]
        return {"pixel_values": torch.from_numpy(np.stack(values))}
    return dict(rows.encode(processor, max_tokens).convert_to_tensors("pt"))


def logits_of(
    model: torch.nn.Module | PreTrainedModel,
    processor: Processor,
    rows: Rows,
    max_tokens: int,
    advance: Callable[[int], None],
) -> Logits:
    """Compute logits of any number of rows, one part's tokens in memory at a time."""
    parts = of_size(rows.parts())
    return np.concatenate([torch_logits(model, processor, part, max_tokens, advance)[0] for part in parts])


@torch.inference_mode()
def _forward(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding, chosen: Sequence[int]
) -> Logits:
    batch = tokenizer.pad(
        {key: [values[row] for row in chosen] for key, values in encoded.items()}, return_tensors="pt"
    )
    device = next(model.parameters()).device
    logits: Logits = model(**batch.to(device)).logits.float().cpu().numpy()
    return logits
