"""Fixtures of the training tests: a hub that cannot be reached, a run with LoRA, copies of runs to change."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from shared import once, run_in, run_recipe
from tiny import Quiet, write_recipe

from training.pipeline.stage import Context
from training.recipe.recipe import Recipe


@pytest.fixture(autouse=True, scope="session")
def no_hub() -> Iterator[None]:
    """Make every test behave as on a machine without a network.

    No test can leak what it tests either.
    """
    from huggingface_hub import constants

    from training.sources import locate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        locate.offline.cache_clear()
        yield
        locate.offline.cache_clear()


@pytest.fixture(scope="session")
def tiny_tag(trained_tag: str) -> str:
    """Here the bundle is the one that the tiny run made, and not the handmade one."""
    return trained_tag


@pytest.fixture(scope="session")
def tiny_bundle(trained_bundle: Path) -> Path:
    return trained_bundle


@pytest.fixture(scope="session")
def lora_recipe(shared: Path, tiny_model: Path, tiny_csv: Path) -> Path:
    train = {"epochs": 6, "learning_rate": 0.005, "checkpoint_steps": 30}

    def build(place: Path) -> None:
        write_recipe(place / "lora.yaml", tiny_model, tiny_csv, method="lora", train=train)

    return once(shared / "lora-recipe", build) / "lora.yaml"


@pytest.fixture(scope="session")
def lora_run(shared: Path, lora_recipe: Path) -> Path:
    """Return the directory of a LoRA run with every stage done but `package`.

    Treat it as read-only, and copy it to change it.
    """
    return run_in(once(shared / "lora-run", lambda place: run_recipe(lora_recipe, place, package=False)))


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that copies a run and returns the copy's directory of runs.

    That directory is for RunDir.open or --runs.
    """

    def copy(root: Path) -> Path:
        shutil.copytree(root, tmp_path / "runs" / root.parent.name / root.name)
        return tmp_path / "runs"

    return copy


@pytest.fixture
def context(tmp_path: Path) -> Callable[..., Context]:
    """Return a function that makes a stage's context with a fresh work directory."""

    def make(recipe: Recipe, **inputs: Any) -> Context:
        work = tmp_path / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return Context(recipe, work, inputs, Quiet())

    return make


@pytest.fixture
def stop_at() -> Iterator[Callable[[int], None]]:
    """Interrupt the next training in the middle of a step.

    Steps are counted from 1 over all its phases. Step 0 never comes.
    """
    from transformers import Trainer

    with pytest.MonkeyPatch.context() as patch:

        def arrange(step: int) -> None:
            patch.undo()
            original, done = Trainer.training_step, Counter[str]()

            def stopping(self: Trainer, *args: Any, **options: Any) -> Any:
                done["steps"] += 1
                if done["steps"] == step:
                    raise KeyboardInterrupt
                return original(self, *args, **options)

            patch.setattr(Trainer, "training_step", stopping)

        yield arrange
