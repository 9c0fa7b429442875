"""The interface of a task in training: what its inputs are, from a source to the exported model and the report.

Nothing heavy is imported here or by the tasks when they are imported: a recipe is checked by them.
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
"""Return the cleaned text of a column's value."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a row: `text` is stored, and `content` stands for it where inputs are compared."""

    text: str
    text_pair: str | None
    content: str


class Task(ABC):
    """Task of a model, with all that training needs to know about it."""

    name: ClassVar[str]
    """The recipe's and the manifest's."""
    noun: ClassVar[str]
    nouns: ClassVar[str]
    onnx_task: ClassVar[str]
    """Optimum's name of the graph to export."""
    auto_model: ClassVar[str]
    """Name of transformers' class that loads a model with its head."""
    refused: ClassVar[dict[str, str]]
    """Keys of the recipe that mean nothing here, with the reason."""
    rows_at_once: ClassVar[int]
    """Number of rows whose inputs are in memory at once while they are read."""
    lengths: ClassVar[bool]
    """True for inputs with lengths to report and labels to judge by their words."""
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
        """Return digests that change with the rows, without reading more than that needs."""

    @abstractmethod
    def read(self, raw: Raw, names: ColumnNames, read_text: ReadText) -> Input:
        """Return the input of a row. Raises ValueError for one that cannot be used."""

    def as_read(self, recipe: "Recipe") -> "Recipe":
        """Return the recipe as the data stage goes by it."""
        return recipe

    @abstractmethod
    def processor(self, recipe: "Recipe") -> "Processor":
        """Load the base model's processor.

        Raises InputError when it has none that can be served.
        """

    @abstractmethod
    def dataset(self, parts: "Iterable[Rows]", processor: Any, max_tokens: int, file: Path) -> "Dataset | ImageRows":
        """Return rows as Trainer takes them; `file` may hold them."""

    @abstractmethod
    def columns(self, names: ColumnNames) -> Columns:
        """Return the columns of the manifest."""

    @abstractmethod
    def write_processor(self, processor: Any, exported: Path, directory: Path) -> None:
        """Write into `directory` what the service reads; `exported` is what Optimum wrote."""

    @abstractmethod
    def limits(self, exported: Path, max_tokens: int) -> Limits:
        """Return what one input of the exported model may be."""

    def coverage(self, rows: "RowFile", processor: Any, max_tokens: int, seed: int) -> "TokenCoverage | None":
        """Count unknown tokens and truncated rows in a sample of `rows`; None where inputs are no texts."""
        del rows, processor, max_tokens, seed
        return None

    def probes(self, processor: Any) -> list[str]:
        """Return texts that tell two tokenizers apart; none where inputs are no texts."""
        del processor
        return []

    @abstractmethod
    def digest(self, processor: Any) -> str:
        """Return the sha256 that stands for a processor."""

    @abstractmethod
    def exported_digest(self, exported: Path) -> str:
        """Return the sha256 that stands for the exported processor.

        It is the sha256 of the processor that the exported one was made of.
        """

    def shown(self, rows: "Rows", origins: Sequence[str]) -> "Rows":
        """Return the rows as a report shows them."""
        del origins
        return rows

    def bound(self, max_tokens: int) -> str:
        """Return how long an input may be, in words; empty where the model takes one size."""
        del max_tokens
        return ""
