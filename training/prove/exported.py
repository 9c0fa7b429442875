"""What the service makes inputs with, as the export stage leaves it: written and read here, told apart by a digest."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from bentune.bundle.manifest import ImageLimits, Limits, ProcessorSettings, write_json
from bentune.bundle.processor import IMAGES, ImageSettings
from service.tasks.encoder import Encoded, Encoder
from service.tasks.image import ImageEncoder, Pixels
from service.tasks.text import TextTokenizer, Tokens
from training.prove.parity import digest
from training.recipe.recipe import Recipe
from training.tasks.image.processor import LIMITS, ImageProcessor
from training.tasks.image.rows import stand_in
from training.tasks.logits import Processor
from training.tasks.rows import Rows

SETTINGS = "processor/settings.json"
TOKENIZER = "processor/tokenizer.json"


def write_settings(processor: Processor, exported: Path) -> None:
    """Write processor/settings.json, and limits.json where the model takes images."""
    if isinstance(processor, ImageProcessor):
        write_json(exported / SETTINGS, processor.settings)
        write_json(exported / LIMITS, processor.limits)
        return
    settings = ProcessorSettings(
        pad_id=processor.pad_token_id,
        pad_type_id=processor.pad_token_type_id,
        padding_side=processor.padding_side,
        truncation_side=processor.truncation_side,
    )
    write_json(exported / SETTINGS, settings)


def served_encoder(exported: Path, recipe: Recipe) -> Encoder:
    """The service's own tokenizer or image processor, on the exported files."""
    settings = (exported / SETTINGS).read_bytes()
    limits = limits_of(exported, recipe)
    if isinstance(limits, ImageLimits):
        return ImageEncoder(ImageSettings.model_validate_json(settings), limits)
    return TextTokenizer(exported / TOKENIZER, ProcessorSettings.model_validate_json(settings), limits.max_tokens)


def limits_of(exported: Path, recipe: Recipe) -> Limits:
    """What one input of the exported model may be."""
    if recipe.task == IMAGES:
        return ImageLimits.model_validate_json((exported / LIMITS).read_bytes())
    return Limits(max_tokens=recipe.max_tokens)


def encoded(rows: Rows, encoder: Encoder) -> list[Encoded]:
    """Every row as the service gives it to the model; what is too long is cut."""
    pairs = rows.pairs if rows.pairs is not None else [None] * len(rows)
    return [encoder.encode(*texts, truncate=True) for texts in zip(rows.texts, pairs, strict=True)]


def ids_of(inputs: Sequence[Encoded]) -> list[list[int]]:
    """What stands for each input in the parity chain: its token ids, or a digest of its pixel values."""
    return [_ids(one) for one in inputs]


def _ids(one: Encoded) -> list[int]:
    if isinstance(one, Pixels):
        return stand_in(one)
    if isinstance(one, Tokens):
        return one.ids
    raise TypeError(f"{type(one).__name__} is neither tokens nor pixels")


def exported_digest(exported: Path, recipe: Recipe) -> str:
    """sha256 that stands for the exported processor; the same as `processor_digest` of the one it was made of."""
    if recipe.task == IMAGES:
        return digest(json.loads((exported / SETTINGS).read_bytes()))
    return _tokenizer_digest(Tokenizer.from_file(str(exported / TOKENIZER)))


def processor_digest(processor: Processor) -> str:
    """sha256 that stands for a tokenizer or an image processor."""
    if isinstance(processor, ImageProcessor):
        return digest(processor.settings.model_dump(mode="json"))
    return _tokenizer_digest(_backend(processor))


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend


def _tokenizer_digest(tokenizer: Tokenizer) -> str:
    # As it is loaded, for tokenizer_config.json can change what tokenizer.json says. Truncation and padding are set
    # anew for every call, and saved in whatever state the last call left them.
    content = json.loads(tokenizer.to_str())
    return digest({key: value for key, value in content.items() if key not in ("truncation", "padding")})
