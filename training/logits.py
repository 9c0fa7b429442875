"""Runs a torch classifier over rows: what the evaluation and the parity chain compare."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from training.rows import Rows

Logits = npt.NDArray[np.float32]


def torch_logits(
    model: torch.nn.Module | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    max_tokens: int,
    advance: Callable[[int], None],
    batch_size: int = 16,
) -> tuple[Logits, list[list[int]]]:
    """Logits, float32 [rows, labels], in the order of the rows, and the token ids that gave them.

    Rows of like length share a batch. The model is put into eval mode: dropout would make every comparison differ.
    """
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
