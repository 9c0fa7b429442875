"""Share of unknown tokens and of truncated rows in a sample of texts."""

import json

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from training.pipeline.results import TokenCoverage
from training.tasks.rows import RowFile, Rows, of_size

MOST_ROWS = 2_000
MOST_CHARACTERS = 2_000_000
"""Bound on the characters of the sample, so that a few huge texts do not take minutes."""
AT_ONCE = 100


def coverage(rows: RowFile, tokenizer: PreTrainedTokenizerBase, max_tokens: int, seed: int) -> TokenCoverage:
    """Count tokens, unknown tokens and truncated rows in at most MOST_ROWS rows, drawn with the seed."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:MOST_ROWS])
    read = tokens = unknown = truncated = longest = characters = 0
    unknown_token = unknown_id(tokenizer.backend_tokenizer)
    special = tokenizer.num_special_tokens_to_add(pair=rows.paired)
    for part in of_size(rows.parts(chosen), AT_ONCE):
        ids = _ids(part, tokenizer)
        lengths = [len(row) for row in ids]
        read += len(ids)
        tokens += sum(lengths) - special * len(ids)
        unknown += sum(row.count(unknown_token) for row in ids) if unknown_token is not None else 0
        truncated += sum(length > max_tokens for length in lengths)
        longest = max(longest, *lengths)
        characters += sum(map(len, (*part.texts, *(part.pairs or ()))))
        if characters > MOST_CHARACTERS:
            break
    return TokenCoverage(rows=read, tokens=tokens, unknown=unknown, truncated=truncated, longest=longest)


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """Return the id of the unknown token; None for a tokenizer that reads every text by bytes.

    Transformers names an unknown token for those too, which then stands only where a text spells it.
    """
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("byte_fallback"):
        return None
    if model["type"] == "Unigram":
        found: int | None = model["unk_id"]
        return found
    token = model.get("unk_token")
    return tokenizer.token_to_id(token) if token else None


def _ids(part: Rows, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    # verbose=False: it warns of each text that is longer than the model takes, which is what is counted here.
    encoded = tokenizer(part.texts, part.pairs, truncation=False, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]
