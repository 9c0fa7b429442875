"""The interface of a stage: its module, the inputs that it is given, and the reporter that it writes to."""

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
"""Each stage's module, by the stage's name; it has `run`, and is imported only when the stage runs."""


class Reporter(Protocol):
    """The place where a stage shows its progress to people."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Show a progress bar.

        Call the value with the number of steps done since the last call.
        """

    def say(self, renderable: Any) -> None:
        """Print a line or a rich table."""


@dataclass(frozen=True, slots=True)
class Context:
    """One run of a stage: it reads the directories of earlier stages in `inputs`, and writes into `work` only.

    `work` becomes the stage's directory when the stage returns, and not before. After an interruption a stage finds
    there what it had written under the same settings, and may go on from it.
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
        """Return whether the recipe has this stage.

        The stage is there only where it is asked for.
        """
        return kind.stage in self.inputs

    def result(self, kind: type[R]) -> R:
        """Read the result of an earlier stage."""
        return result_in(self.inputs[kind.stage], kind)
