"""Tokenized rows in a memory-mapped file, so that memory does not grow with their number."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from training.tasks.image.rows import ImageRows
from training.tasks.rows import Rows, of_size

AT_ONCE = 1_000
"""Number of rows tokenized at once, because their tokens are first Python integers, ten times as large."""

TYPES = {"input_ids": pa.int32(), "token_type_ids": pa.int8()}
MASK = "attention_mask"


def tokenized(parts: Iterable[Rows], tokenizer: PreTrainedTokenizerBase, max_tokens: int, file: Path) -> Dataset:
    """Tokenize rows, truncated to `max_tokens`, into `file`.

    The result is `file` as a dataset with `labels`. The collator adds padding and attention mask.
    """
    file.parent.mkdir(exist_ok=True)
    writer = None
    with pa.OSFile(str(file), "wb") as sink:
        for part in of_size(parts, AT_ONCE):
            encoded = part.encode(tokenizer, max_tokens)
            columns = {
                name: pa.array(values, pa.list_(TYPES.get(name, pa.int32())))
                for name, values in encoded.items()
                if name != MASK
            }
            batch = pa.record_batch({**columns, "labels": pa.array(part.labels.tolist())})
            writer = writer or pa.ipc.new_stream(sink, batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
    return Dataset.from_file(str(file))


def lengths_of(rows: Dataset | ImageRows) -> npt.NDArray[np.int32]:
    """Count the tokens, or patches, of each row, int32 [rows]."""
    if isinstance(rows, ImageRows):
        return np.asarray(rows.lengths, dtype=np.int32)
    tables = rows.select_columns("input_ids").with_format("arrow").iter(AT_ONCE)
    lengths = [pc.list_value_length(table["input_ids"]).to_numpy() for table in tables]
    return np.concatenate(lengths).astype(np.int32)
