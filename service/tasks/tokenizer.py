"""Tokenizer of the bundle's tokenizer.json, and padded batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from bentune.bundle.errors import BundleError, TooLarge
from bentune.bundle.processor import TOKEN_LENGTH, TRUNCATED, UNKNOWN_TOKENS, ProcessorSettings

IntMatrix = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tokens:
    """One input as the model sees it: `ids` and `type_ids` have the same length, special tokens included.

    `unknown` of the tokens are unknown to the tokenizer.
    """

    ids: list[int]
    type_ids: list[int]
    truncated: bool
    unknown: int = 0

    @property
    def identity(self) -> list[int]:
        """Token ids."""
        return self.ids

    @property
    def features(self) -> dict[str, float]:
        """Its length, whether it was cut, and the share of unknown tokens."""
        length = len(self.ids)
        return {TOKEN_LENGTH: length, TRUNCATED: self.truncated, UNKNOWN_TOKENS: self.unknown / length}

    def __len__(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """Tokenizer of the bundle. It gives the ids of the Hugging Face tokenizer in training (`verify` compares them)."""

    def __init__(self, tokenizer_file: Path, settings: ProcessorSettings, max_tokens: int) -> None:
        """Read tokenizer.json, and replace its truncation and padding by ours.

        Raises BundleError when the file is not a tokenizer.
        """
        self.settings = settings
        self.max_tokens = max_tokens
        try:
            self._whole = Tokenizer.from_file(str(tokenizer_file))
            self._cut = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the Rust side raises bare Exception
            raise BundleError(f"{tokenizer_file} is not a tokenizer that this version can read: {error}") from error
        for tokenizer in (self._whole, self._cut):
            tokenizer.no_padding()
            tokenizer.no_truncation()
            tokenizer.encode_special_tokens = settings.split_special_tokens
        special = self._cut.num_special_tokens_to_add(is_pair=False)
        if max_tokens <= special:  # it would silently truncate nothing
            raise BundleError(f"{tokenizer_file} adds {special} special tokens to a text, max_tokens is {max_tokens}")
        self._cut.enable_truncation(max_tokens, direction=settings.truncation_side)

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool, field: str = "`inputs`") -> Tokens:
        """Tokenize one text or a pair.

        It is safe to call from several threads, and releases the interpreter lock. Raises TooLarge, which names
        `field`, when there are more than `max_tokens` and `truncate` is false.
        """
        tokenizer = self._cut if truncate else self._whole
        # `encode` computes the same ids but keeps the interpreter lock, which would block the event loop.
        (encoding,) = tokenizer.encode_batch_fast([text if text_pair is None else (text, text_pair)])
        if len(encoding) > self.max_tokens:
            raise TooLarge(
                f"{field} must have at most {self.max_tokens} tokens, this one has {len(encoding)}: "
                "shorten it or set `truncate` to true"
            )
        ids, unknown_id = encoding.ids, self.settings.unknown_id
        return Tokens(
            ids=ids,
            type_ids=encoding.type_ids,
            truncated=bool(encoding.overflowing),
            unknown=0 if unknown_id is None else ids.count(unknown_id),
        )

    def collate(self, batch: Sequence[Tokens]) -> dict[str, IntMatrix]:
        """Return the padded arrays of a batch, see `pad`."""
        return pad(batch, self.settings)


def pad(batch: Sequence[Tokens], settings: ProcessorSettings) -> dict[str, IntMatrix]:
    """Return the padded arrays of a batch, each int64 [rows, longest].

    They are `input_ids`, `attention_mask` and `token_type_ids`.
    """
    longest = max(len(tokens) for tokens in batch)
    shape = (len(batch), longest)
    ids = np.full(shape, settings.pad_id, dtype=np.int64)
    type_ids = np.full(shape, settings.pad_type_id, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for row, tokens in enumerate(batch):
        place = slice(0, len(tokens)) if settings.padding_side == "right" else slice(longest - len(tokens), longest)
        ids[row, place] = tokens.ids
        type_ids[row, place] = tokens.type_ids
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": type_ids}
