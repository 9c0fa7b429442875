"""Texts of the benchmark: test rows of a run, cut to a number of tokens so that every server does the same work."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training.tasks.rows import read_rows


@dataclass(frozen=True)
class Texts:
    """Test `rows` with `labels`; `usual` texts, `short` texts of at most 20 tokens, and `long` texts at the limit."""

    rows: list[str]
    labels: list[str]
    usual: list[str]
    short: list[str]
    long: list[str]
    mean_tokens: float


def texts_of(
    run: Path, label_names: list[str], usual_tokens: int, max_tokens: int, *, paragraphs: bool, seed: int = 0
) -> Texts:
    """Read the texts of a finished run in shuffled order.

    A long text is several rows, one after the other. With `paragraphs` the usual texts are the rows' paragraphs; whole
    articles would all be cut to the same length.
    """
    tokenizer = Tokenizer.from_file(str(run / "export/processor/tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = read_rows(run / "data/test.parquet")
    order = np.random.default_rng(seed).permutation(len(rows))
    texts = [rows.texts[row] for row in order]
    whole = [part for text in texts for part in text.splitlines() if part.strip()] if paragraphs else texts
    usual = [_cut(tokenizer, text, usual_tokens) for text in whole]
    everything = "\n".join(texts)
    size = max(len(text) for text in texts)
    starts = np.linspace(0, max(len(everything) - 8 * size, 0), 50, dtype=int)
    return Texts(
        rows=texts,
        labels=[label_names[label] for label in rows.labels[order]],
        usual=usual,
        short=[_cut(tokenizer, text, 20) for text in texts],
        long=[_cut(tokenizer, everything[start:], max_tokens) for start in starts],
        mean_tokens=float(np.mean([len(tokenizer.encode(text)) for text in usual])),
    )


def _cut(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """Cut `text` to at most `tokens` tokens, special ones included."""
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    encoding = tokenizer.encode(text[: 20 * tokens], add_special_tokens=False)
    if len(encoding) + special <= tokens and len(text) <= 20 * tokens:
        return text
    end: int = encoding.offsets[tokens - special - 1][1]
    return text[:end]
