"""Base of the tasks on texts and pairs: their tokenizer, and tokenizing off the event loop where a request is long."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bentune.bundle.errors import BundleError, InvalidRequest
from bentune.bundle.manifest import Columns, Limits
from bentune.bundle.processor import InputSettings, ProcessorSettings
from bentune.bundle.targets.target import Target
from service.http.requests import InputRow, field_of
from service.tasks.task import Encoded, Encoder, Intake, Task
from service.tasks.tokenizer import TextTokenizer

INLINE_CHARACTERS = 20_000
"""Characters of a request above which tokenizing runs in a thread, so as not to block the event loop."""


class TextTask(Task):
    """A task whose inputs are texts, or pairs of texts."""

    @classmethod
    def open(cls, root: Path, settings: InputSettings, limits: Limits, target: Target, columns: Columns) -> Self:
        """Open tokenizer.json in `root`.

        Raises BundleError when it is no tokenizer, or the settings are of images.
        """
        if not isinstance(settings, ProcessorSettings):
            raise BundleError(f"{root} holds the processor of an image model, and {cls.name} takes texts")
        tokenizer = TextTokenizer(root / "tokenizer.json", settings, limits.max_tokens)
        return cls(tokenizer, target, pairs=columns.text_pair is not None)

    @property
    def inputs(self) -> str:
        """Kind of one input: `text` or `pair`."""
        return "pair" if self.pairs else "text"

    def intake(self, most_waiting: int) -> Intake:
        """Return a tokenizer of requests; nothing waits in it."""
        del most_waiting
        return Tokenizing(self.encoder)


class Tokenizing:
    """Tokenizer of requests; a long one is tokenized in a thread."""

    watched = False

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    async def encode(self, rows: Sequence[InputRow], *, truncate: bool, single: bool, deadline: float) -> list[Encoded]:
        """Tokenize each row.

        Raises InvalidRequest for a text without tokens, and TooLarge.
        """
        del deadline
        if sum(len(text) + len(pair or "") for text, pair in rows) > INLINE_CHARACTERS:
            return await asyncio.to_thread(self._encode, rows, truncate, single)
        return self._encode(rows, truncate, single)

    def close(self) -> None:
        """Do nothing: it has no thread of its own."""

    def _encode(self, rows: Sequence[InputRow], truncate: bool, single: bool) -> list[Encoded]:
        encoded = []
        for index, (text, pair) in enumerate(rows):
            field = field_of(index, single=single)
            tokens = self._encoder.encode(text, pair, truncate=truncate, field=field)
            if not len(tokens):  # blanks, for a tokenizer that adds no special tokens
                raise InvalidRequest(f"{field} has no tokens: it must hold more than blanks")
            encoded.append(tokens)
        return encoded
