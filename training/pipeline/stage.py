"""The interface of a stage: its module, its inputs, and its reporter."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from training.pipeline.layout import StageFiles
from training.pipeline.results import R, result_in
from training.recipe.recipe import Recipe

_Files = TypeVar("_Files", bound=StageFiles)

MODULES = {
    "data": "training.data.stage",
    "train": "training.train.stage",
    "merge": "training.prove.merge",
    "calibrate": "training.prove.calibrate",
    "evaluate": "training.prove.evaluate",
    "export": "training.prove.export",
    "verify": "training.prove.verify",
    "plan": "training.plan.stage",
    "package": "training.package",
}
"""Each stage's module, by the stage's name; it has `run`, and is imported when the stage runs."""


class Reporter(Protocol):
    """The place where a stage shows its progress."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Show a progress bar.

        The returned function is called with the number of steps done since the last call.
        """

    def say(self, renderable: Any) -> None:
        """Print a line or a rich table."""


@dataclass(frozen=True, slots=True)
class Context:
    """One run of a stage: it reads the directories of earlier stages in `inputs`, and writes into `work` only.

    `work` becomes the stage's directory only when the stage returns. After an interruption it may still contain files
    of the same settings, from which the stage can resume.
    """

    recipe: Recipe
    work: Path
    inputs: Mapping[str, Path]
    report: Reporter

    def files(self, kind: type[_Files]) -> _Files:
        """Return the files of an earlier stage.

        Raises KeyError for a stage that this one does not read.
        """
        return kind(self.inputs[kind.stage])

    def has(self, kind: type[StageFiles]) -> bool:
        """Return True when the recipe has this stage."""
        return kind.stage in self.inputs

    def result(self, kind: type[R]) -> R:
        """Read the result of an earlier stage."""
        return result_in(self.inputs[kind.stage], kind)
