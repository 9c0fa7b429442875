"""Interface of a task in the service: its inputs, its batches and its answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Float32s
from bentune.bundle.manifest import Bundle, Columns, Limits
from bentune.bundle.processor import InputSettings
from bentune.bundle.targets.target import Observation, Prediction, Target
from service.http.requests import InputRow, PredictRequest, rows_of

Feed: TypeAlias = dict[str, npt.NDArray[Any]]
"""Inputs of a graph, by name."""


WAITING_TOKEN = 48
"""Bytes of a waiting token of a text: its id in two lists."""


class Encoded(Protocol):
    """Encoded input of the model; its length is its cost in a batch, in tokens."""

    @property
    def truncated(self) -> bool:
        """True if the input was cut because it was too long."""

    @property
    def identity(self) -> list[int]:
        """Numbers that identify the encoded input: token ids, or a digest of pixel values."""

    @property
    def features(self) -> Mapping[str, float]:
        """Return what drift compares of an input."""

    def __len__(self) -> int: ...


class Encoder(Protocol):
    """Processor of the bundle; safe to call from several threads."""

    @property
    def settings(self) -> InputSettings:
        """The bundle's processor settings."""

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool, field: str = "`inputs`") -> Encoded:
        """Encode one text, pair, or image in base64.

        Raises RequestError, which names `field`.
        """

    def collate(self, batch: Sequence[Any]) -> Feed:
        """Return one batch as inputs of the graph."""


class Intake(Protocol):
    """Encoder of requests: bounded, and off the event loop where encoding takes long."""

    watched: bool
    """True if encoding may wait, so that it must be cancelled when the client closes its connection."""

    async def encode(
        self, rows: Sequence[InputRow], *, truncate: bool, single: bool, deadline: float
    ) -> Sequence[Encoded]:
        """Encode the rows of one request by `deadline` on the clock `time.monotonic`.

        Raises RequestError.
        """
        ...

    def close(self) -> None:
        """Stop its threads."""


class Task(ABC):
    """One task with the encoder and the target of one bundle."""

    name: ClassVar[str]
    """Name of the task in the manifest."""
    summary: ClassVar[str]
    """First line of /predict on the API's page."""
    comparable: ClassVar[bool] = True
    """True if versions can be compared: training rows must be identified by their texts."""
    requirements: ClassVar[tuple[str, ...]] = ()
    """Packages that pip installs in the Bento besides those of bentofile.yaml."""
    body: ClassVar[dict[str, Any]] = {}
    """OpenAPI content of the bodies that /predict accepts besides JSON."""

    def __init__(self, encoder: Encoder, target: Target, *, pairs: bool = False) -> None:
        self.encoder = encoder
        self.target = target
        self.pairs = pairs

    @classmethod
    @abstractmethod
    def open(cls, root: Path, settings: InputSettings, limits: Limits, target: Target, columns: Columns) -> Self:
        """Open the processor in the directory `root`.

        Raises BundleError when it cannot be read.
        """

    @classmethod
    def waiting_token_bytes(cls, bundle: Bundle) -> int:
        """Return the bytes of memory that a waiting token takes."""
        del bundle
        return WAITING_TOKEN

    @classmethod
    def encoding_bytes(cls, bundle: Bundle) -> int:
        """Return the memory that encoding takes while requests are served, in bytes."""
        del bundle
        return 0

    @property
    @abstractmethod
    def inputs(self) -> str:
        """Kind of one input, as /info names it."""

    @property
    def limits(self) -> dict[str, int]:
        """Limits of one input that /info shows besides `max_tokens`."""
        return {}

    @abstractmethod
    def intake(self, most_waiting: int) -> Intake:
        """Return the encoder of requests, in which at most `most_waiting` inputs wait."""

    def read(self, request: PredictRequest, max_inputs: int) -> tuple[list[InputRow], bool]:
        """Return the inputs of a request, and whether it is a single one.

        Raises InvalidRequest and TooLarge.
        """
        return rows_of(request, pairs=self.pairs, max_inputs=max_inputs)

    def collate(self, batch: Sequence[Encoded]) -> Feed:
        """Return one batch as inputs of the graph."""
        return self.encoder.collate(batch)

    def answer(self, output: Float32s, scores: Float32s, request: PredictRequest) -> list[Prediction]:
        """Return the answer to one input, best label first.

        Its output and scores are each float32 [labels].
        """
        return self.target.ranked(output if request.raw_scores else scores, request.top_k, by=output)

    def difference(self, scores: Float32s, expected: Sequence[float]) -> float:
        """Return the distance of one row's scores from those of a golden row.

        It is infinite when their numbers of scores differ.
        """
        return self.target.distance(scores, np.asarray(expected)) if len(expected) == len(scores) else float("inf")

    def observe(self, encoded: Encoded, scores: Float32s) -> Observation:
        """Return the labels, confidence and features of one answer for the metrics."""
        found = self.target.observe(scores)
        return Observation(found.labels, found.confidence, {**encoded.features, **found.features})
