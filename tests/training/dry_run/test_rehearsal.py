"""A rehearsal counts what the training will really do, on its own rows, and leaves no checkpoints."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainerState

from training.dry_run import rehearsal
from training.dry_run.estimate import Rehearsal
from training.dry_run.process import OutOfMemory
from training.dry_run.rehearsal import rehearse
from training.pipeline.stage import Context
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.train import stage as train

SHORT = ["train.epochs=2", "train.checkpoint_steps=12"]  # 30 steps of 16 of 240 rows


class Events(TrainerCallback):
    def __init__(self) -> None:
        self.seen = Counter[str]()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seen["step"] += 1

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        self.seen["evaluate"] += 1

    def on_save(self, *_: Any, **__: Any) -> None:
        self.seen["save"] += 1


@pytest.fixture(autouse=True)
def _a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "ENOUGH_SECONDS", 0.0)


@pytest.fixture
def data(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny rows, those held out as validation rows too."""
    directory = tmp_path / "runs/tiny/1/data"
    shutil.copytree(tiny_run / "data", directory)
    shutil.copyfile(directory / "test.parquet", directory / "validation.parquet")
    return directory


@pytest.fixture
def rehearsed(data: Path, tmp_path: Path) -> Callable[..., Rehearsal]:
    def run(recipe: Recipe, partial: Path | None = None) -> Rehearsal:
        work = tmp_path / "rehearsal"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        found = rehearse(recipe, data, work, partial)
        assert not list(work.rglob("checkpoint-*"))
        return found

    return run


def test_it_counts_what_training_does(
    tiny_recipe: Path, data: Path, rehearsed: Callable[..., Rehearsal], context: Callable[..., Context]
) -> None:
    early = "train.early_stopping={metric: log_loss, patience: 9}"
    recipe = load_recipe(tiny_recipe, [*SHORT, early, "train.evaluate=7", "data.split.validation=0.1"]).recipe
    found, events = rehearsed(recipe), Events()
    given = context(recipe, data=data)
    train.run(given, [events])
    (phase,) = found.phases
    assert (phase.steps, phase.done, found.rows) == (30, 0, 240)
    # Trainer calls on_evaluate once more, when it has restored the best.
    assert (phase.steps, phase.evaluations, phase.saves) == tuple(
        events.seen[name] for name in ("step", "evaluate", "save")
    )
    assert len(phase.timed) == rehearsal.LEAST_PASSES * 5
    assert {step.group for step in phase.timed} == {0, 1, 2, 3, 4}
    assert sum(phase.left) > 240 * 2 * 6
    assert all(step.seconds > 0 and 16 * 5 < step.tokens <= 16 * 24 for step in phase.timed)
    assert min(phase.evaluation_seconds, phase.save_seconds, found.start_seconds) > 0
    kept = sum(file.stat().st_size for file in (given.work / "model").iterdir())
    assert found.saved_bytes == kept
    # The weights, and two numbers for each in the optimizer's state.
    assert 3 * kept < phase.checkpoint_bytes < 3 * kept + 100_000
    assert found.model_bytes < kept < found.model_bytes + 20_000
    assert found.peak_bytes > 100_000_000


def test_what_an_interrupted_run_did_is_not_ahead(
    tiny_recipe: Path, rehearsed: Callable[..., Rehearsal], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "partial/checkpoints/checkpoint-20"
    checkpoint.mkdir(parents=True)
    TrainerState(global_step=20).save_to_json(str(checkpoint / "trainer_state.json"))
    recipe = load_recipe(tiny_recipe, SHORT).recipe
    (phase,), (whole,) = rehearsed(recipe, tmp_path / "partial").phases, rehearsed(recipe).phases
    assert (phase.done, phase.saves, phase.evaluations) == (20, 2, 2)
    assert (whole.saves, whole.evaluations) == (3, 3)
    assert sum(phase.left) < 0.5 * sum(whole.left)


def test_what_an_interrupted_run_holds_is_told(
    tiny_recipe: Path, rehearsed: Callable[..., Rehearsal], tmp_path: Path
) -> None:
    partial = tmp_path / "partial"
    for size, name in ((700, "tokens/train.arrow"), (20, "pruned-checkpoints/checkpoint-5/model"), (9, "dense/model")):
        (partial / name).parent.mkdir(parents=True)
        (partial / name).write_bytes(b"x" * size)
    checkpoint = partial / "checkpoints/checkpoint-20"
    checkpoint.mkdir(parents=True)
    TrainerState(global_step=20).save_to_json(str(checkpoint / "trainer_state.json"))
    recipe = load_recipe(tiny_recipe, SHORT).recipe
    assert rehearsed(recipe, partial).held_bytes == 720 + (checkpoint / "trainer_state.json").stat().st_size
    assert rehearsed(recipe).held_bytes == 0


def test_a_pruned_model_is_trained_twice(tiny_recipe: Path, rehearsed: Callable[..., Rehearsal]) -> None:
    recipe = load_recipe(tiny_recipe, [*SHORT, "method=lora", "prune={kind: magnitude, epochs: 1}"]).recipe
    found = rehearsed(recipe)
    assert [(phase.name, phase.steps) for phase in found.phases] == [("training", 30), ("after pruning", 15)]
    lora, full = found.phases
    # The second one tunes every weight.
    assert full.checkpoint_bytes > 1.2 * lora.checkpoint_bytes


def test_a_teacher_is_asked_about_a_few_rows(
    tiny_recipe: Path, tiny_tag: str, rehearsed: Callable[..., Rehearsal], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    original = rehearsal.open_teacher

    def watched(recipe: Recipe) -> Any:
        teacher = original(recipe)

        class Watched:
            def logits(self, rows: Any, *rest: Any) -> Any:
                asked.append(len(rows))
                return teacher.logits(rows, *rest)

        return Watched()

    monkeypatch.setattr(rehearsal, "open_teacher", watched)
    recipe = load_recipe(tiny_recipe, [*SHORT, f"distill={{teacher: '{tiny_tag}'}}"]).recipe
    (phase,) = rehearsed(recipe).phases
    assert asked == [rehearsal.TEACHER_ROWS]
    assert phase.steps == 30


def test_images_are_scored_too(image_run: Path, image_recipe_file: Path, tmp_path: Path) -> None:
    data, work = tmp_path / "images/1/data", tmp_path / "rehearsal"
    shutil.copytree(image_run / "data", data)
    work.mkdir()
    recipe = load_recipe(image_recipe_file, ["train.epochs=1"]).recipe
    assert rehearse(recipe, data, work, None).phases[0].evaluation_seconds == 0
    shutil.copyfile(data / "test.parquet", data / "validation.parquet")
    shutil.rmtree(work)
    work.mkdir()
    (phase,) = rehearse(recipe, data, work, None).phases
    assert phase.evaluations > 0
    assert phase.evaluation_seconds > 0


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), OutOfMemory),
        (MemoryError("4 GB"), OutOfMemory),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_what_does_not_fit_is_told_from_what_is_broken(
    error: Exception,
    raised: type[Exception],
    tiny_recipe: Path,
    rehearsed: Callable[..., Rehearsal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("training.dry_run.rehearsal.trainer_of", fail)
    recipe = load_recipe(tiny_recipe, SHORT).recipe
    with pytest.raises(raised):
        rehearsed(recipe)
