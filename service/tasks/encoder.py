"""What stands between a request's inputs and the model: a tokenizer for texts, an image processor for images."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from bentune.bundle.errors import BundleError
from bentune.bundle.manifest import Bundle, ImageLimits, ProcessorSettings
from bentune.bundle.processor import ImageSettings
from service.tasks.image import ImageEncoder, stacked
from service.tasks.text import TextTokenizer, pad

Feed: TypeAlias = dict[str, npt.NDArray[Any]]
"""The inputs of a graph, by name."""


class Encoded(Protocol):
    """One input as the model sees it; its length is what it costs in a batch, in tokens."""

    @property
    def truncated(self) -> bool:
        """Whether it was too long, and cut."""

    def __len__(self) -> int: ...


class Encoder(Protocol):
    """Makes each input what the model takes; safe to call from several threads."""

    @property
    def settings(self) -> ProcessorSettings | ImageSettings:
        """How a batch is put together."""

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool, field: str = "`inputs`") -> Encoded:
        """One text, pair, or image in base64. Raises RequestError, which names `field`."""


def encoder_of(bundle: Bundle) -> Encoder:
    """The bundle's. Raises BundleError when it cannot be read, or Pillow is missing for one of images."""
    if not isinstance(bundle.processor, ImageSettings):
        return tokenizer_of(bundle)
    if not isinstance(bundle.manifest.limits, ImageLimits):
        raise BundleError(f"{bundle.root} takes images, and its manifest does not say how large; package it again")
    return ImageEncoder(bundle.processor, bundle.manifest.limits)


def tokenizer_of(bundle: Bundle, max_tokens: int | None = None) -> TextTokenizer:
    """The tokenizer of a bundle of texts, by default with its own bound. Raises BundleError for one of images."""
    if isinstance(bundle.processor, ImageSettings):
        raise BundleError(f"{bundle.tag} takes images, and a model of texts is needed")
    most = max_tokens or bundle.manifest.limits.max_tokens
    return TextTokenizer(bundle.root / "processor/tokenizer.json", bundle.processor, most)


def feed(batch: Sequence[Any], settings: ProcessorSettings | ImageSettings) -> Feed:
    """One batch for the graph: padded token ids, or pixel values."""
    return dict(stacked(batch)) if isinstance(settings, ImageSettings) else dict(pad(batch, settings))
