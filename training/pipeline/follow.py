"""What a process that follows does: it takes part in the stages that the leader calls it to, and writes nothing."""

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

LAST_WORD = timedelta(minutes=1)


class Silent:
    """A reporter that says nothing: the leader speaks for all."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:  # noqa: ARG002
        """No bar."""
        return contextlib.nullcontext(lambda _: None)

    def say(self, renderable: Any) -> None:
        """Nothing."""


def call(team: Any, stage: str, recipe: Recipe, inputs: dict[str, Path]) -> None:
    """As the leader: have all others run a stage on these inputs, beside this process."""
    places = {name: str(path.resolve()) for name, path in inputs.items()}
    team.say({"stage": stage, "recipe": recipe.model_dump(mode="json"), "inputs": places})


def follow(team: Team) -> int:
    """Do what the leader says until it ends; returns its exit code.

    A stage that fails here as it does there ends with the leader's code as well; one that fails here alone raises, so
    that whoever started the processes ends the others.
    """
    while EXIT not in (word := team.hear()):
        module = importlib.import_module(MODULES[word["stage"]])
        inputs = {name: Path(place) for name, place in word["inputs"].items()}
        with tempfile.TemporaryDirectory(prefix="bentune-") as work:
            try:
                module.run(Context(Recipe.model_validate(word["recipe"]), Path(work), inputs, Silent()))
            except BentuneError as error:
                return _last_word(team, error)
    return int(word[EXIT])


def _last_word(team: Team, error: BentuneError) -> int:
    from torch.distributed import DistStoreError

    try:
        word = team.hear(LAST_WORD)
    except DistStoreError:
        raise error from None
    if EXIT not in word:  # it went on
        raise error
    return int(word[EXIT])
