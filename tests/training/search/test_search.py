"""The search: repeatable, interrupted without a trace, bad trials ended early, the best one a recipe that runs."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from apart import Apart
from command import ask
from results import RESULTS
from tiny import Quiet, write_recipe

from bentune.bundle.errors import BentuneError, InputError
from training.pipeline.results import CurvePoint, TrainResult
from training.pipeline.run_dir import RunDir
from training.pipeline.stage import Context
from training.pipeline.workers import Place
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.search import search as hyper_search
from training.search.result import SearchResult
from training.search.search import search

SEARCH = {
    "trials": 2,
    "values": {
        "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "train.batch_size": {"low": 16, "high": 32, "step": 8},
    },
}


@pytest.fixture
def recipe_file(tmp_path: Path, tiny_model: Path, tiny_csv: Path) -> Path:
    train = {"epochs": 2, "learning_rate": 0.005, "checkpoint_steps": 5}
    return write_recipe(tmp_path / "tiny.yaml", tiny_model, tiny_csv, train=train, search=SEARCH)


def test_a_search_that_is_killed_goes_on_and_ends_as_it_would_have(recipe_file: Path, tmp_path: Path) -> None:
    """Finished trials are not trained again.

    The unfinished trial goes on from its checkpoint.
    """
    whole = ask("search", recipe_file, "--runs", tmp_path / "whole", "--json")
    assert whole.code == 0
    runs = tmp_path / "killed"
    with Apart(tmp_path / "said", "search", recipe_file, "--runs", runs) as command:
        deadline = time.monotonic() + 120
        while not any(runs.glob("tiny/*/search/trial-1/checkpoints/checkpoint-*/trainer_state.json")):
            assert command.runs
            assert time.monotonic() < deadline
            time.sleep(0.002)
        command.kill()
    answer = ask("search", recipe_file, "--runs", runs)
    assert answer.code == 0
    assert "resuming after 1 of 2 trials" in answer.err
    assert "resuming from step " in answer.err
    assert "trial 1 of 2" not in answer.err
    found, expected = (
        SearchResult.model_validate_json(next(place.glob("tiny/*/search/search.json")).read_bytes())
        for place in (runs, tmp_path / "whole")
    )
    assert [trial.values for trial in found.trials] == [trial.values for trial in expected.trials]
    assert [trial.value for trial in found.trials] == pytest.approx([trial.value for trial in expected.trials])
    assert found.rows == {"train": 192, "validation": 48}
    data = json.loads(next(runs.glob("tiny/*/data/stage.json")).read_text())
    assert found.fingerprint == data["summary"]["fingerprint"]
    # The result of the search: the best is a recipe, and nothing else is left.
    place = next(runs.glob("tiny/*/search"))
    assert {path.name for path in place.iterdir()} == {"best.yaml", "rows", "search.db", "search.json"}
    best = load_recipe(place / "best.yaml").recipe
    assert (best.train.learning_rate, best.train.batch_size) == tuple(found.best.values.values())
    given = load_recipe(recipe_file).recipe
    assert best.name == given.name == "tiny"
    assert best == given.model_copy(update={"train": best.train, "search": best.search})
    assert best.search.values == {}
    assert "run the best: bentune run" in answer.err
    for word in ("test rows were not used", "the recipe's own", "best", "train.batch_size"):
        assert word in answer.err
    assert whole.json["best"]["value"] == max(trial.value or 0 for trial in expected.trials)
    again = ask("search", recipe_file, "--runs", runs, "--json")
    assert again.json["trials"] == json.loads((place / "search.json").read_text())["trials"]
    # The data stage is that of a run, which finds it done.
    assert ask("data", place / "best.yaml", "--runs", runs, "--json").json["redone"] is False


class Training:
    """In the place of the train stage: the accuracy of a trial grows in ten steps to what its learning rate says."""

    def __init__(self) -> None:
        self.recipes: list[Recipe] = []
        self.steps: list[int] = []
        self.raises: dict[int, BaseException] = {}

    def run(self, context: Context, callbacks: Any) -> TrainResult:
        self.recipes.append(context.recipe)
        assert not (context.inputs["data"] / "test.parquet").exists()
        if (error := self.raises.get(len(self.recipes) - 1)) is not None:
            raise error
        self.steps.append(0)
        curve = []
        for step in range(1, 11):
            reached = -abs(math.log10(context.recipe.learning_rate / 1e-3)) * (1 + 1 / step)
            metrics = {"eval_accuracy": reached, "eval_loss": -reached}
            self.steps[-1] = step
            curve.append(CurvePoint.model_validate({"step": step, "epoch": step / 10} | metrics))
            for callback in callbacks:
                callback.on_evaluate(None, SimpleNamespace(global_step=step, max_steps=10), None, metrics=metrics)
        done = RESULTS["train"]
        assert isinstance(done, TrainResult)
        return done.model_copy(update={"curve": curve, "steps": 10})


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    fake = Training()
    monkeypatch.setattr(hyper_search, "train", fake)
    monkeypatch.setattr(hyper_search.gc, "collect", lambda: 0)  # half a second each among all that tests load
    return fake


@pytest.fixture
def found(tiny_recipe: Path, tiny_run: Path, copied: Any) -> Callable[..., SearchResult]:
    """Search in a copy of the tiny run."""
    runs = copied(tiny_run)

    def run(**settings: Any) -> SearchResult:
        recipe = load_recipe(tiny_recipe).recipe.model_dump(exclude_defaults=True)
        more = settings.pop("recipe", {})
        values = {"train.learning_rate": {"low": 1e-6, "high": 1.0, "log": True}}
        given = Recipe.model_validate(recipe | more | {"search": {"trials": 12, "values": values} | settings})
        with RunDir.open(runs, "tiny") as opened:
            return search(given, opened, Quiet())

    return run


def test_several_processes_are_refused(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.search.search.place", lambda: Place(rank=0, world=2))
    with pytest.raises(InputError, match="search: 2 processes were started, but search needs one"):
        found()


def test_bad_trials_end_early_and_the_best_is_found(found: Any, training: Training) -> None:
    result = found(trials=20)
    states = [trial.state for trial in result.trials]
    assert len(states) == 20
    assert states.count("pruned") >= 5
    assert states.count("complete") >= 5
    assert all(trial.value is None for trial in result.trials if trial.state == "pruned")
    early = [steps for steps, trial in zip(training.steps, result.trials, strict=True) if trial.state == "pruned"]
    assert max(early) < 10
    assert result.best.value == max(trial.value for trial in result.trials if trial.value is not None)
    assert abs(math.log10(result.best.values["train.learning_rate"] / 1e-3)) < 0.5
    # By chance alone as many would lie as near: the sampler learns from what it saw.
    later = [abs(math.log10(recipe.learning_rate / 1e-3)) for recipe in training.recipes[12:]]
    assert sum(distance < 1.5 for distance in later) > 0.7 * len(later)


@pytest.mark.parametrize("pruning", ["none", "hyperband"])
def test_other_ways_of_pruning(pruning: str, found: Any, training: Training) -> None:
    states = {trial.state for trial in found(pruning=pruning, trials=20).trials}
    assert states == ({"complete"} if pruning == "none" else {"complete", "pruned"})


def test_the_recipes_own_values_come_first(found: Any, training: Training) -> None:
    result = found(trials=2)
    assert training.recipes[0].learning_rate == 0.005
    assert result.own == 0
    assert result.trials[0].values == {"train.learning_rate": 0.005}
    assert found(trials=2, values={"train.learning_rate": [0.1, 0.2]}).own is None


def test_a_loss_is_minimized(found: Any, training: Training) -> None:
    result = found(metric="loss", trials=6, pruning="none")
    assert result.direction == "minimize"
    assert result.best.value == min(trial.value for trial in result.trials)


def test_what_the_last_or_the_best_checkpoint_reached(
    found: Any, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is that of the checkpoint that a run of the recipe would keep.

    Without validation rows of its own, that is the last one.
    """
    recipe = Recipe.model_validate(
        {"name": "n", "task": "text-classification", "model": "m", "data": {"source": "s"}, "search": {"trials": 1}}
    )
    found = {"eval_accuracy": 0.5}, {"loss": 1.0}, {"eval_accuracy": 0.9}, {"eval_accuracy": 0.7}
    curve = [CurvePoint.model_validate({"step": 1, "epoch": 1.0} | values) for values in found]
    assert hyper_search._reached(curve, recipe) == 0.7
    split = recipe.data.split.model_copy(update={"validation": 0.1})
    chosen = recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": split})})
    assert hyper_search._reached(curve, chosen) == 0.9


def test_the_same_values_are_not_trained_twice(found: Any, training: Training) -> None:
    result = found(trials=8, values={"train.learning_rate": [1e-4, 1e-3]}, pruning="none")
    assert len(result.trials) == 8
    assert len(training.recipes) == 2
    assert sum(trial.repeats is None for trial in result.trials) == 2
    assert all(
        trial.value == result.trials[trial.repeats].value for trial in result.trials if trial.repeats is not None
    )
    by_value = {(trial.values["train.learning_rate"], trial.value) for trial in result.trials}
    assert len(by_value) == 2


def test_a_trial_that_fails_is_told_and_the_others_go_on(found: Any, training: Training) -> None:
    training.raises = {
        1: BentuneError("the training loss is no longer a number at step 10"),
        2: torch.OutOfMemoryError("out of memory"),
        3: InputError("max_tokens: 512 is more than the 64 that it takes"),
    }
    result = found(trials=5, pruning="none")
    assert [trial.state for trial in result.trials] == ["complete", "failed", "failed", "failed", "complete"]
    assert [trial.reason for trial in result.trials[1:4]] == [str(error) for error in training.raises.values()]


def test_what_is_wrong_with_the_recipe_ends_the_search_at_once(found: Any, training: Training) -> None:
    training.raises = {0: InputError("model: no such model")}
    with pytest.raises(InputError, match="no such model"):
        found()
    assert len(training.recipes) == 1
    with pytest.raises(InputError, match="search.metric: 'log_loss' is not measured; choose from accuracy, loss"):
        found(metric="log_loss")
    with pytest.raises(InputError, match="search.values: name what to search for"):
        found(values={})
    warm = {"parent": "tiny:1", "train": {"warm_start": True}}
    with pytest.raises(InputError, match="leave train.warm_start out"):
        found(recipe=warm)


def test_when_every_trial_fails(found: Any, training: Training) -> None:
    training.raises = dict.fromkeys(range(4), BentuneError("the loss is no longer a number"))
    with pytest.raises(BentuneError, match="none of 4 trials succeeded; error of the last one: the loss is no longer"):
        found(trials=4)


def test_more_trials_go_on_and_another_recipe_starts_over(found: Any, training: Training) -> None:
    few = found(trials=3)
    more = found(trials=5)
    assert len(training.recipes) == 5
    assert more.trials[:3] == few.trials
    assert len(found(trials=3).trials) == 5  # what was tried is not forgotten
    assert len(training.recipes) == 5
    other = found(trials=3, recipe={"max_tokens": 16})
    assert len(other.trials) == 3
    assert len(training.recipes) == 8
    assert found(trials=5) == more


def test_what_is_distilled_and_pruned_is_another_recipe(
    found: Any, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = {"first": "a", "second": "b"}
    monkeypatch.setattr(hyper_search, "teacher_digest", teachers.__getitem__)
    recipes: list[dict[str, Any]] = [{}, *({"distill": {"teacher": teacher}} for teacher in teachers)]
    recipes += [{"distill": {"teacher": "first", "weight": 0.9}}, {"prune": {"kind": "magnitude"}}]
    for number, recipe in enumerate(recipes, 1):
        assert len(found(trials=2, recipe=recipe).trials) == 2
        assert len(training.recipes) == 2 * number
    found(trials=2, recipe=recipes[1])
    assert len(training.recipes) == 10
    teachers["first"] = "c"  # another one under the same name
    found(trials=2, recipe=recipes[1])
    assert len(training.recipes) == 12


def test_trials_are_not_pruned_and_the_best_recipe_is(found: Any, training: Training, tmp_path: Path) -> None:
    found(trials=2, recipe={"prune": {"kind": "magnitude"}})
    assert [recipe.prune for recipe in training.recipes] == [None, None]
    (best,) = tmp_path.glob("runs/tiny/*/search/best.yaml")
    assert load_recipe(best).recipe.prune is not None


def test_an_interruption_leaves_no_trace_in_what_is_found(found: Any, training: Training) -> None:
    expected = found(trials=6, pruning="none")
    training.raises = {9: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        found(trials=6, pruning="none", validation=0.21)
    again = found(trials=6, pruning="none", validation=0.21)
    assert [trial.values for trial in again.trials] == [trial.values for trial in expected.trials]
    assert len(training.recipes) == 13  # one of them twice, and it is no trial of its own
