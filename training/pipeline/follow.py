"""The loop of the other ranks: each runs the stages that rank 0 sends, and writes nothing to the run."""

import contextlib
import importlib
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bentune.bundle.errors import BentuneError
from training.pipeline.stage import MODULES, Context
from training.pipeline.workers import EXIT, Team
from training.recipe.recipe import Recipe

EXIT_TIMEOUT = timedelta(minutes=1)


class Silent:
    """A reporter that prints nothing: rank 0 reports for all."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG002
        """Show no progress bar."""
        return contextlib.nullcontext(lambda _: None)

    def say(self, renderable: Any) -> None:
        """Print nothing."""


def call(team: Any, stage: str, recipe: Recipe, inputs: dict[str, Path]) -> None:
    """Start a stage on these inputs in all other ranks; for rank 0 only."""
    places = {name: str(path.resolve()) for name, path in inputs.items()}
    team.send({"stage": stage, "recipe": recipe.model_dump(mode="json"), "inputs": places})


def follow(team: Team) -> int:
    """Run the stages that rank 0 sends until it ends; return its exit code.

    Where a stage fails in both ranks, the exit code is that of rank 0. Where it fails in this rank alone, its error is
    raised, so that the launcher ends the other processes.
    """
    while EXIT not in (message := team.receive()):
        module = importlib.import_module(MODULES[message["stage"]])
        inputs = {name: Path(place) for name, place in message["inputs"].items()}
        with tempfile.TemporaryDirectory(prefix="bentune-") as work:
            try:
                module.run(Context(Recipe.model_validate(message["recipe"]), Path(work), inputs, Silent()))
            except BentuneError as error:
                return _exit_code(team, error)
    return int(message[EXIT])


def _exit_code(team: Team, error: BentuneError) -> int:
    from torch.distributed import DistStoreError

    try:
        message = team.receive(EXIT_TIMEOUT)
    except DistStoreError:
        raise error from None
    if EXIT not in message:  # it went on
        raise error
    return int(message[EXIT])
