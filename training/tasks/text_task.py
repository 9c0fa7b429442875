"""Base of the tasks whose inputs are texts, or pairs of texts."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bentune.bundle.files import write_json
from bentune.bundle.manifest import Columns, Limits
from bentune.bundle.processor import ProcessorSettings
from training.pipeline.layout import ExportFiles
from training.recipe.data import ColumnNames, DataSettings
from training.sources.raw import Raw, Source
from training.tasks.task import Input, ReadText, Task

if TYPE_CHECKING:
    from datasets import Dataset
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from training.pipeline.results import TokenCoverage
    from training.recipe.recipe import Recipe
    from training.tasks.logits import Processor
    from training.tasks.rows import RowFile, Rows

ROWS_AT_ONCE = 1000
SPECIAL = 8
"""More special tokens than any tokenizer adds to a text."""
PROBES = (
    *("a", "  blanks before and after  ", "lines\n\nand\ttabs\r\n", "CAPITALS and small", "it's 3.50, isn't it ?"),
    *(
        "\uff26\uff35\uff2c\uff2c width \uff11\uff12",
        "e\u0301 and \u00e9",
        "a\u00a0no-break\u200bblank",
        "\u4f60\u597d\u3002\u3053\u3093",
    ),
)


class TextTask(Task):
    """A task on texts."""

    noun: ClassVar = "text"
    nouns: ClassVar = "texts"
    onnx_task: ClassVar = "text-classification"
    auto_model: ClassVar = "AutoModelForSequenceClassification"
    rows_at_once: ClassVar = ROWS_AT_ONCE
    lengths: ClassVar = True
    request: ClassVar = "-H 'Content-Type: application/json' -d '{\"inputs\": \"a text\"}'"
    refused: ClassVar[dict[str, str]] = {
        "data.columns.image": "texts have no images",
        "train.augment.rotation": "texts are not turned",
        "train.augment.crop": "texts are not cut out",
        "train.augment.flip": "texts are not mirrored",
    }

    def sources(self, data: DataSettings, also: Sequence[str] = ()) -> list[Source]:
        """Open files, folders, databases and hub data sets."""
        from training.sources.files import open_sources

        return open_sources(data, also)

    def source_digests(self, data: DataSettings, also: Sequence[str] = ()) -> list[str]:
        """Return the digest of each source."""
        from training.sources import files

        return files.source_digests(data, also)

    def read(self, raw: Raw, names: ColumnNames, read_text: ReadText) -> Input:
        """Return the cleaned text or pair."""
        text = read_text(names.text, raw.text)
        pair = read_text(names.text_pair, raw.text_pair) if names.text_pair else None
        return Input(text, pair, text)

    def processor(self, recipe: "Recipe") -> "Processor":
        """Load the tokenizer."""
        from training.tasks.base.load import load_tokenizer

        return load_tokenizer(recipe)

    def dataset(self, parts: "Iterable[Rows]", processor: Any, max_tokens: int, file: Path) -> "Dataset":
        """Return tokenized rows; with several processes only rank 0 writes them."""
        from datasets import Dataset

        from training.pipeline.workers import team
        from training.tasks.text.tokenized import tokenized

        if not team().leads:
            return Dataset.from_file(team().broadcast(None))
        rows = tokenized(parts, processor, max_tokens, file)
        team().broadcast(str(file.resolve()))
        return rows

    def columns(self, names: ColumnNames) -> Columns:
        """Return the columns of the texts."""
        return Columns(text=names.text, text_pair=names.text_pair)

    def write_processor(self, processor: Any, exported: Path, directory: Path) -> None:
        """Write tokenizer.json as Optimum saved it, and what it leaves open."""
        from training.tasks.text.coverage import unknown_id

        (exported / "tokenizer.json").rename(ExportFiles(directory).tokenizer)
        settings = ProcessorSettings(
            pad_id=processor.pad_token_id,
            pad_type_id=processor.pad_token_type_id,
            padding_side=processor.padding_side,
            truncation_side=processor.truncation_side,
            split_special_tokens=processor.split_special_tokens,
            unknown_id=unknown_id(processor.backend_tokenizer),
        )
        write_json(ExportFiles(directory).settings, settings)

    def limits(self, exported: Path, max_tokens: int) -> Limits:
        """Return the most tokens."""
        del exported
        return Limits(max_tokens=max_tokens)

    def coverage(self, rows: "RowFile", processor: Any, max_tokens: int, seed: int) -> "TokenCoverage | None":
        """Count unknown tokens and truncated rows in a sample of the rows."""
        from training.tasks.text.coverage import coverage

        return coverage(rows, processor, max_tokens, seed)

    def probes(self, processor: "PreTrainedTokenizerBase") -> list[str]:
        """Return made-up texts that clean rows do not cover.

        They have blanks, line ends, widths, accents or special tokens; one is too long.
        """
        special = [f"{token} before and after{token}" for token in processor.all_special_tokens]
        return [*PROBES, *special, " ".join(PROBES * 200)]

    def extremes(self, processor: "PreTrainedTokenizerBase", max_tokens: int) -> list[str]:
        """Return a text of more than `max_tokens` tokens, and a letter."""
        text = " ".join(PROBES)
        tokens = len(processor(text, truncation=False, verbose=False)["input_ids"])
        return [" ".join([text] * (1 + max_tokens // max(1, tokens - SPECIAL))), "a"]

    def digest(self, processor: "PreTrainedTokenizerBase") -> str:
        """Return the digest of the tokenizer."""
        return tokenizer_digest(processor.backend_tokenizer)

    def exported_digest(self, exported: Path) -> str:
        """Return the digest of tokenizer.json."""
        from tokenizers import Tokenizer

        return tokenizer_digest(Tokenizer.from_file(str(ExportFiles(exported).tokenizer)))

    def bound(self, max_tokens: int) -> str:
        """Describe the most tokens."""
        return f"{max_tokens} tokens; what is longer is cut"


def tokenizer_digest(tokenizer: "Tokenizer") -> str:
    """Return the sha256 of a loaded tokenizer, without truncation and padding.

    It is loaded, because tokenizer_config.json can override tokenizer.json. Truncation and padding are set for each
    call, and the last call's values are saved.
    """
    from training.tasks.digest import digest

    content = json.loads(tokenizer.to_str())
    return digest({key: value for key, value in content.items() if key not in ("truncation", "padding")})
