"""Prediction log: a sample of inputs and answers, written by a thread of its own."""

import logging
import queue
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import to_json

from bentune.bundle.files import Frozen
from bentune.bundle.seen_rows import row_key
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.targets.registry import TARGETS
from service.http.requests import InputRow
from service.monitoring.log_files import LogFiles

logger = logging.getLogger("bentoml.bentune")

# The key of so many characters blocks the event loop for as long as tokenizing a short text. Longer texts are counted,
# but not logged.
MOST_CHARACTERS = 20_000
# Lines that wait for the disk; with the longest texts some ten megabytes.
MOST_WAITING = 512
CLOSE_S = 3.0

Short = Annotated[str, StringConstraints(max_length=1000)]

WRITTEN, TOO_LONG, TOO_MANY, FAILED = OUTCOMES = ("written", "too_long", "too_many", "failed")


class LoggedPrediction(Frozen):
    """One line of the log, an input with its answer.

    `key` is `row_key` in hex, and `characters` is the length of the texts. The texts themselves are there only with
    `prediction_log_text`. `tokens` counts the encoded tokens, special tokens included. `scores` has each label's score,
    and `label` is the best one. `target` is the kind of the model's target, left out where an input has one label;
    older lines have `multi_label` instead.
    """

    time: datetime
    model: Short
    content: Short
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    characters: int = Field(ge=0)
    tokens: int = Field(ge=1)
    truncated: bool
    label: Short
    scores: dict[Short, Annotated[float, Field(allow_inf_nan=False)]] = Field(min_length=1)
    target: str | None = None
    text: str | None = None
    text_pair: str | None = None

    @property
    def kind(self) -> str:
        """Kind of the target."""
        return self.target or OneLabel.kind

    @model_validator(mode="before")
    @classmethod
    def _older(cls, entries: Any) -> Any:
        if not isinstance(entries, dict) or "multi_label" not in entries:
            return entries
        rest = {name: value for name, value in entries.items() if name != "multi_label"}
        return rest | ({"target": ManyLabels.kind} if entries["multi_label"] else {})

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        if self.kind not in TARGETS:
            raise ValueError(f"target is none of {', '.join(TARGETS)}")
        low, high = TARGETS[self.kind].bounds
        if not all(low <= score <= high for score in self.scores.values()):
            raise ValueError(f"a score is not from {low:g} to {high:g}")
        return self


class SampledInput(NamedTuple):
    """Sampled input that waits for its answer; `row` is None unless texts are logged."""

    key: str
    characters: int
    row: InputRow | None


class PredictionLog:
    """Prediction log of one process."""

    def __init__(
        self, directory: Path, share: float, max_bytes: int, *, texts: bool, count: Callable[[str], None]
    ) -> None:
        """Log a `share` of all inputs.

        `count` is called with the outcome of each sampled input, one of OUTCOMES.
        """
        self._share = share
        self._texts = texts
        self._count = count
        self._files = LogFiles(directory, max_bytes)
        self._waiting: queue.Queue[LoggedPrediction | None] = queue.Queue(MOST_WAITING)
        self._random = random.Random()  # noqa: S311 (a sample, not a secret)
        self._complained = False
        self._writer = threading.Thread(target=self._write, name="prediction-log", daemon=True)
        self._writer.start()

    def keep(self, row: InputRow) -> SampledInput | None:
        """Sample an input: return the data for its line, or None if it is not logged."""
        if self._random.random() >= self._share:
            return None
        characters = sum(len(text) for text in row if text is not None)
        if characters > MOST_CHARACTERS:
            self._count(TOO_LONG)
            return None
        return SampledInput(row_key(*row).hex(), characters, row if self._texts else None)

    def put(
        self,
        kept: SampledInput,
        *,
        tokens: int,
        truncated: bool,
        scores: dict[str, float],
        model: str,
        content: str,
        target: str = OneLabel.kind,
    ) -> None:
        """Queue a line for the writer; when the queue is full, count it and drop it."""
        text, text_pair = kept.row or (None, None)
        line = LoggedPrediction.model_construct(
            time=datetime.now(UTC),
            model=model,
            content=content,
            key=kept.key,
            characters=kept.characters,
            tokens=tokens,
            truncated=truncated,
            label=max(scores, key=scores.__getitem__),
            scores=scores,
            target=target if target != OneLabel.kind else None,
            text=text,
            text_pair=text_pair,
        )
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._count(TOO_MANY)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write the waiting lines for at most `timeout_s` seconds, and stop the writer."""
        try:
            self._waiting.put(None, timeout=timeout_s)
        except queue.Full:  # the disk is stuck
            return
        self._writer.join(timeout_s)

    def _write(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._files.append(to_json(line, exclude_none=True) + b"\n")
                self._count(WRITTEN)
            except Exception as error:  # whatever it is, the next line is tried, and no request is affected
                self._count(FAILED)
                if not self._complained:
                    self._complained = True
                    # An error that is not an OSError may have the text in its message.
                    reason = error if isinstance(error, OSError) else type(error).__name__
                    logger.error(
                        "the prediction log cannot be written (%s); bentune_prediction_log_total counts", reason
                    )
        self._files.close()
