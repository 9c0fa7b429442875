"""Training: repeatable, resumable to the same weights, stopped when the loss is lost, honest about its progress."""

import contextlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

from bentune.bundle.errors import BentuneError
from training.pipeline.stage import Context
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe
from training.tasks.targets.losses import cross_entropy
from training.train import stage as train
from training.train.fit import fit as fitting
from training.train.fit import trainer
from training.train.fit.rows import training_rows
from training.train.fit.trainer import last_whole_checkpoint
from training.train.stage import worth_keeping

FAST = {"epochs": 3.0, "learning_rate": 0.005, "checkpoint_steps": 15}  # 45 steps of 16 rows
Weights = dict[str, torch.Tensor]


class Told:
    """A reporter that remembers each bar's total and what it was advanced by."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.advanced: list[int] = []
        self.said: list[Any] = []

    @contextlib.contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Callable[[int], None]]:
        self.total = total
        yield self.advanced.append

    def say(self, renderable: Any) -> None:
        self.said.append(renderable)


@pytest.fixture
def fit(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], Weights, Told]]:
    """Run the stage on the tiny rows; `keep` goes on in the same directory."""

    def run(*, keep: bool = False, data: Path | None = None, **more: Any) -> tuple[dict[str, Any], Weights, Told]:
        work, told = tmp_path / "work", Told()
        if not keep:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(exist_ok=True)
        recipe = load_recipe(tiny_recipe).recipe.model_dump() | {"train": FAST} | more
        context = Context(Recipe.model_validate(recipe), work, {"data": data or tiny_run / "data"}, told)
        summary = train.run(context).written()
        return summary, load_file(next(work.glob("*/*model.safetensors"))), told

    return run


@pytest.fixture
def with_validation(tiny_run: Path, tmp_path: Path) -> Path:
    """The tiny rows, some of them held back to pick the best checkpoint with."""
    data = Path(shutil.copytree(tiny_run / "data", tmp_path / "data"))
    shutil.copyfile(data / "test.parquet", data / "validation.parquet")
    return data


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[key], other[key], atol=1e-6) for key in one)


def test_the_same_seed_gives_the_same_weights(fit: Any) -> None:
    (one, weights, _), (again, weights_again, _), (_, others, _) = fit(), fit(), fit(seed=1)
    assert same(weights, weights_again)
    assert one == again
    assert not same(weights, others)


def test_what_is_written_and_told(fit: Any, tiny_run: Path, tmp_path: Path) -> None:
    summary, weights, told = fit()
    names = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert names == ["base.json", "labels.json", "model", "target.json", "tokenizer"]
    assert json.loads((tmp_path / "work/labels.json").read_text()) == ["animal", "food", "tool"]
    total = sum(weight.numel() for weight in weights.values())
    assert summary["parameters"] == {"trainable": total, "total": total}
    assert told.said == [f"full: {total:,} of {total:,} weights are trained (100.0%)"]
    assert summary["learning_rate"] == 0.005
    assert summary["base_sha256"] == json.loads((tmp_path / "work/base.json").read_text())["sha256"]
    assert [entry["step"] for entry in summary["curve"]] == [10, 15, 20, 30, 40, 45]
    windows = zip([10, 5, 5, 10, 10, 5], [entry["loss"] for entry in summary["curve"]], strict=True)
    assert summary["loss"] == pytest.approx(sum(steps * loss for steps, loss in windows) / 45)
    assert summary["curve"][-1]["loss"] < 0.8 * summary["curve"][0]["loss"]


def test_the_tokenizer_that_is_saved_has_no_trace_of_its_use(fit: Any, tmp_path: Path) -> None:
    fit(max_tokens=12)
    saved = json.loads((tmp_path / "work/tokenizer/tokenizer.json").read_text())
    assert (saved["truncation"], saved["padding"]) == (None, None)


@pytest.mark.parametrize(
    ("method", "step", "resumed_at"),
    [
        *[("full", 23, 15), ("lora", 38, 30), ("full", 31, 30), ("qlora", 33, 30)],
        *[("bias", 17, 15), ("freeze", 20, 15), ("head", 32, 30)],
    ],
)
def test_an_interrupted_run_ends_with_the_weights_it_would_have_had(
    method: str, step: int, resumed_at: int, fit: Any, stop_at: Any, with_validation: Path
) -> None:
    """The order of the rows, dropout, the loss curve and the best checkpoint included."""
    options = {"method": method, "data": with_validation if "lora" in method else None}
    whole, weights, _ = fit(**options)
    stop_at(step)
    with pytest.raises(KeyboardInterrupt):
        fit(**options)
    resumed, resumed_weights, told = fit(keep=True, **options)
    assert resumed["resumed_at_step"] == resumed_at
    assert f"resuming from step {resumed_at}" in told.said
    assert same(resumed_weights, weights)
    assert {**resumed, "resumed_at_step": 0} == whole
    assert told.advanced[0] == resumed_at
    assert sum(told.advanced) == told.total == 45


def test_a_checkpoint_that_was_written_in_half_is_passed_over(fit: Any, stop_at: Any, tmp_path: Path) -> None:
    whole, weights, _ = fit()
    stop_at(40)
    with pytest.raises(KeyboardInterrupt):
        fit()
    (tmp_path / "work/checkpoints/checkpoint-30/trainer_state.json").unlink()
    resumed, resumed_weights, _ = fit(keep=True)
    assert resumed["resumed_at_step"] == 15
    assert same(resumed_weights, weights)
    assert resumed["curve"] == whole["curve"]


@pytest.mark.parametrize("state", [None, "", '{"epoch": 1.', "\0\0\0"])
def test_the_newest_whole_checkpoint(state: str | None, tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path / "nowhere") is None
    for step in (5, 50, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text("{}")
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    broken = tmp_path / "checkpoint-100/trainer_state.json"
    broken.unlink()
    if state is not None:
        broken.write_text(state)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-50"
    assert not (tmp_path / "checkpoint-100").exists()


def test_after_a_failure_only_whole_checkpoints_are_worth_keeping(tmp_path: Path) -> None:
    assert worth_keeping(tmp_path) == set()
    (tmp_path / "checkpoints/checkpoint-5").mkdir(parents=True)
    assert worth_keeping(tmp_path) == set()
    (tmp_path / "checkpoints/checkpoint-5").mkdir()
    (tmp_path / "checkpoints/checkpoint-5/trainer_state.json").write_text("{}")
    assert worth_keeping(tmp_path) == {"checkpoints"}


def test_a_loss_that_is_no_number_stops_the_training_at_once(fit: Any, tmp_path: Path) -> None:
    for _ in range(2):  # a second try must not take what the first one left for a success
        with pytest.raises(BentuneError) as caught:
            fit(keep=True, train=FAST | {"learning_rate": 1e30})
        assert str(caught.value) == (
            "the training loss is no longer a number at step 10: lower train.learning_rate (it is 1e+30)"
        )
        assert caught.value.exit_code == 3
        assert not (tmp_path / "work/checkpoints").exists()


def test_one_step_with_a_lost_loss_is_enough(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the weights are still numbers."""
    original, done = Trainer.training_step, Counter[str]()

    def losing(self: Trainer, *args: Any, **options: Any) -> Any:
        done["steps"] += 1
        loss = original(self, *args, **options)
        return loss * math.nan if done["steps"] == 23 else loss

    monkeypatch.setattr(Trainer, "training_step", losing)
    with pytest.raises(BentuneError, match="no longer a number at step 30"):
        fit()


def test_a_run_killed_after_the_loss_was_lost_does_not_become_a_success(
    fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint holds the lost weights, and not a step is left to train."""
    for module in (fitting, trainer):
        monkeypatch.setattr(module, "finite", lambda history: True)
    monkeypatch.setattr(fitting, "_mean_loss", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(torch, "isfinite", lambda weight: torch.ones_like(weight, dtype=torch.bool))
    with pytest.raises(KeyboardInterrupt):
        fit(train=FAST | {"learning_rate": 1e30})
    monkeypatch.undo()
    assert last_whole_checkpoint(tmp_path / "work/checkpoints") == tmp_path / "work/checkpoints/checkpoint-45"
    with pytest.raises(BentuneError, match="no longer a number"):
        fit(keep=True, train=FAST | {"learning_rate": 1e30})


@pytest.mark.parametrize(("epochs", "batch_size"), [(0.05, 16), (0.5, 7), (1.0, 240), (1.3, 100), (2.0, 1000)])
def test_the_progress_bar_ends_where_the_training_ends(epochs: float, batch_size: int, fit: Any) -> None:
    summary, _, told = fit(train=FAST | {"epochs": epochs, "batch_size": batch_size})
    assert summary["steps"] == told.total == sum(told.advanced) == math.ceil(math.ceil(240 / batch_size) * epochs)
    assert summary["curve"][-1]["step"] == summary["steps"]


def test_rows_of_like_length_share_a_batch(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, padding, original = 0, 0, Trainer.training_step

    def measuring(self: Trainer, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        nonlocal tokens, padding
        tokens += inputs["attention_mask"].numel()
        padding += int((inputs["attention_mask"] == 0).sum())
        return original(self, model, inputs, *args, **options)

    monkeypatch.setattr(Trainer, "training_step", measuring)
    fit(train=FAST | {"epochs": 1})
    assert tokens > 240 * 5
    assert padding / tokens < 0.15


def test_validation_picks_the_best_checkpoint(
    fit: Any, with_validation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr(fitting, "validation_metrics", lambda *_: {"accuracy": next(scores)})
    best, original = {}, train.save_tuned

    def saving(*args: Any) -> None:
        best.update(load_file(tmp_path / "work/checkpoints/checkpoint-15/adapter_model.safetensors"))
        original(*args)

    monkeypatch.setattr(train, "save_tuned", saving)
    summary, weights, _ = fit(method="lora", data=with_validation)
    validated = [(entry["step"], entry["eval_accuracy"]) for entry in summary["curve"] if "eval_accuracy" in entry]
    assert validated == [(15, 0.9), (30, 0.5), (45, 0.4)]
    assert same(weights, best)


def test_callbacks_see_each_validation_and_may_end_the_training(
    with_validation: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, float]] = []

    class Enough(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            seen.append((state.global_step, metrics["eval_accuracy"]))
            if len(seen) == 2:
                raise KeyboardInterrupt

    recipe = Recipe.model_validate(load_recipe(tiny_recipe).recipe.model_dump() | {"train": FAST})
    context = Context(recipe, tmp_path, {"data": with_validation}, Told())
    with pytest.raises(KeyboardInterrupt):
        train.run(context, callbacks=[Enough()])
    assert [step for step, _ in seen] == [15, 30]
    assert last_whole_checkpoint(tmp_path / "checkpoints") is not None


def test_the_loss_on_validation_rows_is_plain_cross_entropy_whatever_is_minimized(
    with_validation: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it can be compared between runs that minimize something else."""

    def tenfold(logits: torch.Tensor, labels: torch.Tensor, inputs: Any) -> torch.Tensor:
        return 10 * cross_entropy(logits, labels, inputs)

    recipe = Recipe.model_validate(load_recipe(tiny_recipe).recipe.model_dump() | {"train": FAST | {"epochs": 0.5}})
    context = Context(recipe, tmp_path, {"data": with_validation}, Told())
    monkeypatch.setattr(train, "training_rows", lambda *given: replace(training_rows(*given), loss=tenfold))
    first, *_, last = train.run(context).written()["curve"]
    assert first["loss"] > 8  # ln 3, ten times
    assert last["eval_loss"] < 2


def test_a_short_run_is_validated_at_its_end(fit: Any, with_validation: Path) -> None:
    summary, _, _ = fit(train=FAST | {"checkpoint_steps": 1000}, data=with_validation)
    validated = [entry for entry in summary["curve"] if "eval_accuracy" in entry]
    assert [entry["step"] for entry in validated] == [45]
    assert 0 <= validated[0]["eval_accuracy"] <= 1
    assert validated[0]["eval_loss"] > 0


def test_without_a_learning_rate_the_methods_own_is_taken(fit: Any) -> None:
    summary, _, _ = fit(method="lora", train={"epochs": 0.05})
    assert summary["learning_rate"] == 1e-3
    assert max(entry["learning_rate"] for entry in summary["curve"]) <= 1e-3


def test_training_sees_balanced_and_perturbed_rows_and_goes_on_with_the_same(
    fit: Any, stop_at: Any, with_validation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On training rows alone: validation has as many as it had."""
    rare = pq.read_table(with_validation / "train.parquet")
    keep = [label != 2 or number < 60 for number, label in enumerate(rare["label"].to_pylist())]
    pq.write_table(rare.filter(keep), with_validation / "train.parquet")
    seen: list[tuple[int, int]] = []
    original = train.fit

    def watching(model: Any, tokenizer: Any, recipe: Any, rows: Any, validation: Any, *more: Any) -> Any:
        seen.append((len(rows), len(validation)))
        return original(model, tokenizer, recipe, rows, validation, *more)

    monkeypatch.setattr(train, "fit", watching)
    options = {
        "data": with_validation,
        "train": FAST | {"epochs": 1, "balance": "oversample", "label_smoothing": 0.1, "augment": {"copies": 1}},
    }
    whole, weights, told = fit(**options)
    counts = whole["training_rows"]["by_label"]
    assert counts["given"]["tool"] < 30 < 80 <= counts["given"]["food"]
    most = max(counts["given"].values())
    assert counts["trained"] == dict.fromkeys(["animal", "food", "tool"], 2 * most)
    assert seen == [(6 * most, 60)]
    assert f"training set: {6 * most} rows made of {sum(keep)}, {6 * most - sum(keep)} of them perturbed" in told.said
    stop_at(22)
    with pytest.raises(KeyboardInterrupt):
        fit(**options)
    resumed, resumed_weights, _ = fit(keep=True, **options)
    assert resumed["resumed_at_step"] == 15
    assert same(resumed_weights, weights)


def test_label_weights_make_a_rare_label_count(fit: Any, with_validation: Path) -> None:
    rare = pq.read_table(with_validation / "train.parquet")
    keep = [label != 2 or number < 20 for number, label in enumerate(rare["label"].to_pylist())]
    pq.write_table(rare.filter(keep), with_validation / "train.parquet")
    plain, plain_weights, _ = fit(data=with_validation, train=FAST | {"epochs": 1})
    weighted, weights, _ = fit(data=with_validation, train=FAST | {"epochs": 1, "balance": "weights"})
    assert plain["training_rows"]["weights"] is None
    assert weighted["training_rows"]["weights"]["tool"] > 4 > 1 > weighted["training_rows"]["weights"]["animal"]
    assert weighted["steps"] == plain["steps"]
    # The rare label is not given up from the start: its bias is higher.
    assert weights["classifier.bias"][2] > plain_weights["classifier.bias"][2]


def test_what_the_curves_show_is_said_and_kept(fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def warning(curve: Any, best_step: Any) -> list[str]:
        said.append((len(curve), best_step))
        return ["The curve looks odd."]

    monkeypatch.setattr(train, "curve_warnings", warning)
    summary, _, told = fit(train=FAST | {"epochs": 1.0})
    assert summary["warnings"] == ["The curve looks odd."]
    assert told.said[-1] == "[yellow]![/] The curve looks odd."
    assert said == [(len(summary["curve"]), None)]
