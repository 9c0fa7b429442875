"""The interface of a task in training: its inputs, from a source to the exported model and the report.

A check of a recipe imports the tasks, so this module and they have slow imports inside functions only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bentune.bundle.manifest import Columns, Limits
from training.recipe.data import ColumnNames, DataSettings
from training.sources.raw import Raw, Source
from training.tasks.targets.target import TrainingTarget

if TYPE_CHECKING:
    from datasets import Dataset

    from training.pipeline.results import TokenCoverage
    from training.recipe.recipe import Recipe
    from training.tasks.image.rows import ImageRows
    from training.tasks.logits import Processor
    from training.tasks.rows import RowFile, Rows

ReadText = Callable[[str, object], str]
"""Function from a column's name and value to the cleaned text."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a row: `text` is stored, `content` identifies it in comparisons."""

    text: str
    text_pair: str | None
    content: str


class Task(ABC):
    """Task of a model, with its names, readers and writers for training."""

    name: ClassVar[str]
    """Name in the recipe and the manifest."""
    noun: ClassVar[str]
    nouns: ClassVar[str]
    onnx_task: ClassVar[str]
    """Optimum's name of the graph to export."""
    auto_model: ClassVar[str]
    """Name of transformers' class that loads a model with its head."""
    refused: ClassVar[dict[str, str]]
    """Keys of the recipe without a meaning for the task, with the reason."""
    rows_at_once: ClassVar[int]
    """Number of rows whose inputs are in memory at once while they are read."""
    lengths: ClassVar[bool]
    """True for inputs with lengths to report, and with words for the label check."""
    request: ClassVar[str]
    """Options of curl that send one input."""

    def target(self, data: DataSettings) -> TrainingTarget:
        """Return the target of the rows."""
        from training.tasks.targets.registry import CLASSES

        return CLASSES[data.multi_label](data)

    @abstractmethod
    def sources(self, data: DataSettings, also: Sequence[str] = ()) -> list[Source]:
        """Open the recipe's rows; `also` are other columns to read. Raises InputError."""

    @abstractmethod
    def source_digests(self, data: DataSettings, also: Sequence[str] = ()) -> list[str]:
        """Return digests that change with the rows, reading only what that requires."""

    @abstractmethod
    def read(self, raw: Raw, names: ColumnNames, read_text: ReadText) -> Input:
        """Return the input of a row. Raises ValueError for an unusable row."""

    def as_read(self, recipe: "Recipe") -> "Recipe":
        """Return the recipe as the data stage uses it."""
        return recipe

    @abstractmethod
    def processor(self, recipe: "Recipe") -> "Processor":
        """Load the base model's processor.

        Raises InputError when it has no processor that can be served.
        """

    @abstractmethod
    def dataset(self, parts: "Iterable[Rows]", processor: Any, max_tokens: int, file: Path) -> "Dataset | ImageRows":
        """Return rows for Trainer; they may be stored in `file`."""

    @abstractmethod
    def columns(self, names: ColumnNames) -> Columns:
        """Return the columns of the manifest."""

    @abstractmethod
    def write_processor(self, processor: Any, exported: Path, directory: Path) -> None:
        """Write the service's processor into `directory`, from Optimum's `exported` files."""

    @abstractmethod
    def limits(self, exported: Path, max_tokens: int) -> Limits:
        """Return the limits of one input of the exported model."""

    def coverage(self, rows: "RowFile", processor: Any, max_tokens: int, seed: int) -> "TokenCoverage | None":
        """Count unknown tokens and truncated rows in a sample of `rows`; None where inputs are no texts."""
        del rows, processor, max_tokens, seed
        return None

    def probes(self, processor: Any) -> list[str]:
        """Return texts on which tokenizers differ; empty where inputs are not texts."""
        del processor
        return []

    def extremes(self, processor: Any, max_tokens: int) -> list[str]:
        """Return one input that must be cut and one of a single token; none where inputs have one size."""
        del processor, max_tokens
        return []

    @abstractmethod
    def digest(self, processor: Any) -> str:
        """Return the sha256 that identifies a processor."""

    @abstractmethod
    def exported_digest(self, exported: Path) -> str:
        """Return the sha256 that identifies the exported processor.

        It equals the `digest` of the processor from which it was exported.
        """

    def shown(self, rows: "Rows", origins: Sequence[str]) -> "Rows":
        """Return the rows as a report shows them."""
        del origins
        return rows

    def bound(self, max_tokens: int) -> str:
        """Describe the largest input; empty where the model takes one size."""
        del max_tokens
        return ""
