"""What a stage is given and what it leaves behind: the shape that every stage of the pipeline shares."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from training.recipe.recipe import Recipe

Summary = dict[str, Any]

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
    """Where a stage tells people how far it is."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Show a progress bar; call the value with the number of steps done since the last call."""

    def say(self, renderable: Any) -> None:
        """Print a line or a rich table."""


@dataclass(frozen=True, slots=True)
class Context:
    """One stage's run: read the directories of earlier stages in `inputs`, write into `work` only.

    `work` becomes the stage's directory when the stage returns, and not before. After an interruption a stage finds
    there what it had written under the same settings, and may go on from it.
    """

    recipe: Recipe
    work: Path
    inputs: Mapping[str, Path]
    report: Reporter
