"""Effect of each of the recipe's training settings on the steps: a setting without an effect would fail here."""

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted import fit_tiny, recipe_of
from transformers import Trainer, TrainerCallback

from bentune.bundle.errors import InputError
from training.train.fit import arguments
from training.train.fit import fit as fitting
from training.train.fit.fit import Fitted
from training.train.fit.trainer import last_whole_checkpoint


class Steps(TrainerCallback):
    """Remembers the learning rate and the norm of the gradient that each optimizer step was made with."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.norms: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        grads = [weight.grad for weight in given["model"].parameters() if weight.grad is not None]
        self.norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
        self.rates.append(given["optimizer"].param_groups[0]["lr"])


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach() for weight in model.parameters()]


@pytest.fixture
def activations(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Record the number format of each encoder activation computed from now on."""
    seen: list[torch.dtype] = []
    original = torch.nn.functional.gelu

    def noting(values: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(values.dtype)
        return original(values, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "gelu", noting)
    return seen


def largest_difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.named_parameters(), other.parameters(), strict=True)
    # The gradient of a key's bias is nought but for rounding, which Adam makes a step of.
    compared = [(left, right) for (name, left), right in pairs if not name.endswith("key.bias")]
    return max(float((left - right).abs().max()) for left, right in compared)


def falling(step: int) -> float:
    """Return the finished share of the way from the warm-up's end to the last step."""
    return (step - 4) / 16


@pytest.mark.parametrize(
    ("train", "after_warm_up"),
    [
        ({"schedule": "linear"}, lambda step: 1 - falling(step)),
        ({"schedule": "cosine"}, lambda step: 0.5 * (1 + math.cos(math.pi * falling(step)))),
        (
            {"schedule": "cosine_with_restarts", "schedule_cycles": 2},
            lambda step: 0.5 * (1 + math.cos(math.pi * (2 * falling(step) % 1))),
        ),
        ({"schedule": "polynomial", "schedule_power": 2.0}, lambda step: (1 - falling(step)) ** 2),
        ({"schedule": "constant_with_warmup"}, lambda step: 1.0),
        ({"schedule": "inverse_sqrt"}, lambda step: math.sqrt(4 / step)),
        ({"schedule": "constant"}, None),
    ],
)
def test_the_learning_rate_of_each_step_is_the_schedules(
    train: dict[str, Any], after_warm_up: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Twenty steps, four of them warm-up, but for `constant`, which has none."""
    steps = Steps()
    fit_tiny(
        recipe_of(tiny_model, epochs=5.0, batch_size=4, warmup_ratio=0.2, **train), tmp_path, 16, callbacks=(steps,)
    )
    expected = [
        0.005 * (1.0 if after_warm_up is None else step / 4 if step < 4 else after_warm_up(step)) for step in range(20)
    ]
    assert steps.rates == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_gradient_is_cut_to_the_norm_that_is_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    cut, free = Steps(), Steps()
    fitted, _, _ = fit_tiny(recipe_of(tiny_model, max_grad_norm=0.05), tmp_path / "cut", callbacks=(cut,))
    fit_tiny(recipe_of(tiny_model, max_grad_norm=0.0), tmp_path / "free", callbacks=(free,))
    assert min(free.norms) > 0.1
    assert cut.norms == pytest.approx([0.05] * 6, rel=1e-4)
    # The curve shows the norm before it was cut.
    assert (fitted.curve[0].grad_norm or 0) > 0.1


@pytest.mark.parametrize("count", [48, 44])
def test_a_step_in_parts_is_the_step_as_a_whole(count: int, tiny_model: Path, tmp_path: Path) -> None:
    """The last step too, whose rows do not fill the parts: each row counts alike."""
    whole, one, _ = fit_tiny(recipe_of(tiny_model), tmp_path / "whole", count, dropout=False)
    parts, other, _ = fit_tiny(recipe_of(tiny_model, accumulation=2), tmp_path / "parts", count, dropout=False)
    assert parts.steps == whole.steps == 6
    assert largest_difference(one, other) < 1e-5
    assert parts.loss == pytest.approx(whole.loss, abs=1e-4)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_activations_that_are_computed_again_give_the_same_weights(
    method: str, activations: list[torch.dtype], tiny_model: Path, tmp_path: Path
) -> None:
    _, kept, _ = fit_tiny(recipe_of(tiny_model, method), tmp_path / "kept")
    once = len(activations)
    _, again, _ = fit_tiny(recipe_of(tiny_model, method, gradient_checkpointing=True), tmp_path / "again")
    assert len(activations) == 3 * once > 0
    assert largest_difference(kept, again) < 1e-6
    assert not again.is_gradient_checkpointing


def test_a_model_that_cannot_compute_activations_again_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForSequenceClassification

    monkeypatch.setattr(BertForSequenceClassification, "supports_gradient_checkpointing", False)
    with pytest.raises(InputError, match=r"train\.gradient_checkpointing: .* does not support it"):
        fit_tiny(recipe_of(tiny_model, gradient_checkpointing=True), tmp_path)


def test_weights_decay_as_much_as_is_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    sizes = [
        float(torch.cat([weight.flatten() for weight in weights(model) if weight.ndim > 1]).norm())
        for decay in (0.0, 5.0)
        for _, model, _ in [fit_tiny(recipe_of(tiny_model, weight_decay=decay), tmp_path / str(decay))]
    ]
    assert sizes[1] < 0.95 * sizes[0]


def test_the_precision_is_what_the_model_computes_in(
    activations: list[torch.dtype], tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """A CPU without bf16 in the hardware emulates it.

    Only the refusal is taken away here.
    """
    for module in (arguments, fitting):
        monkeypatch.setattr(module, "precision_for", lambda asked: "bf16" if asked == "bf16" else "fp32")
    asked = (("bf16", torch.bfloat16), ("auto", torch.float32))  # what the first one tells accelerate is not left over
    for precision, dtype in asked:
        activations.clear()
        fitted, model, _ = fit_tiny(recipe_of(tiny_model, precision=precision), tmp_path / precision, 16)
        assert "ACCELERATE_MIXED_PRECISION" not in os.environ
        assert set(activations) == {dtype}
        assert fitted.precision == ("fp32" if precision == "auto" else "bf16")
        assert {weight.dtype for weight in weights(model)} == {torch.float32}


def evaluated(fitted: Fitted) -> list[int]:
    return [point.step for point in fitted.curve if point.eval_loss is not None]


@pytest.mark.parametrize(
    ("evaluate", "steps"), [("checkpoint", [5, 10, 12]), ("epoch", [6, 12]), (4, [4, 8, 12]), (100, [12])]
)
def test_the_validation_rows_are_scored_when_it_is_asked_for(
    evaluate: Any, steps: list[int], tiny_model: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_model, epochs=2.0, evaluate=evaluate, checkpoint_steps=5)
    fitted, _, _ = fit_tiny(recipe, tmp_path, validation=12)
    assert evaluated(fitted) == steps
    assert fitted.best_step in steps
    assert not fitted.stopped_early
    found = fitted.curve[-1]
    assert {"accuracy", "balanced_accuracy", "macro_f1", "mcc", "log_loss"} <= found.metrics.keys()
    assert found.metrics["log_loss"] == pytest.approx(found.eval_loss, abs=1e-4)


def scripted(monkeypatch: pytest.MonkeyPatch, metric: str, values: list[float]) -> None:
    """The validation rows have these values of a metric, one after the other."""
    scores = iter(values)
    monkeypatch.setattr(fitting, "validation_metrics", lambda *_: {"accuracy": 0.5, metric: next(scores)})


STOPPING = {"epochs": 10.0, "evaluate": 2, "checkpoint_steps": 3}


@pytest.mark.parametrize(
    ("stopping", "values", "best", "stopped_at"),
    [
        ({"metric": "macro_f1", "patience": 2}, [0.5, 0.7, 0.6, 0.7, 0.9], 4, 8),
        ({"metric": "log_loss", "patience": 2}, [0.5, 0.4, 0.45, 0.39, 0.5, 0.6, 0.1], 8, 12),
        ({"metric": "mcc", "patience": 2, "min_delta": 0.1}, [0.1, 0.15, 0.19, 0.9], 6, 6),
    ],
)
def test_training_stops_early_and_the_best_weights_are_kept(
    stopping: Any, values: list[float], best: int, stopped_at: int, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    kept: dict[int, list[torch.Tensor]] = {}

    class Keeping(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            kept[state.global_step] = [weight.clone() for weight in weights(given["model"])]

    scripted(monkeypatch, stopping["metric"], values)
    recipe = recipe_of(tiny_model, early_stopping=stopping, **STOPPING)
    fitted, model, _ = fit_tiny(recipe, tmp_path, validation=12, callbacks=(Keeping(),))
    assert (fitted.best_step, fitted.steps, fitted.stopped_early) == (best, stopped_at, True)
    assert all(torch.equal(left, right) for left, right in zip(weights(model), kept[best], strict=True))


def test_stopping_early_needs_rows_to_stop_by(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"set data\.split\.validation"):
        fit_tiny(recipe_of(tiny_model, early_stopping={}), tmp_path)


@pytest.mark.parametrize("step", [7, 8])
def test_what_was_counted_towards_stopping_survives_an_interruption(
    step: int, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is interrupted after one evaluation without improvement.

    The next evaluation is the second, and not the first again.
    """
    recipe = recipe_of(tiny_model, early_stopping={"patience": 2}, **STOPPING)
    values = [0.5, 0.7, 0.6, 0.6, 0.6, 0.6]
    scripted(monkeypatch, "accuracy", values)
    whole, expected, _ = fit_tiny(recipe, tmp_path / "whole", validation=12)
    scripted(monkeypatch, "accuracy", values)
    original, done = Trainer.training_step, itertools.count(1)

    def stopping(self: Trainer, *args: Any, **options: Any) -> Any:
        if next(done) == step:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit_tiny(recipe, tmp_path, validation=12)
    # As two processes would have written it, of which each computes half the rows.
    state = next(tmp_path.glob("checkpoints/checkpoint-6/trainer_state.json"))
    written = json.loads(state.read_text())
    state.write_text(json.dumps(written | {"train_batch_size": written["train_batch_size"] // 2}))
    resumed, model, _ = fit_tiny(recipe, tmp_path, validation=12)
    assert resumed.resumed_at == 6
    assert (resumed.steps, resumed.best_step, resumed.curve) == (8, 4, whole.curve)
    assert largest_difference(model, expected) == 0


@pytest.mark.parametrize("stopping", [None, {"patience": 2}])
def test_killed_when_it_was_done_nothing_is_trained_again(
    stopping: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an early stop or the last step, only the model is left to save.

    Both come in the middle of an epoch.
    """
    scripted(monkeypatch, "accuracy", [0.5, 0.7, 0.6, 0.6])
    recipe = recipe_of(tiny_model, **STOPPING | {"epochs": 10.0 if stopping else 1.3}, early_stopping=stopping)
    whole, expected, _ = fit_tiny(recipe, tmp_path, validation=12)
    assert whole.best_step == 4
    monkeypatch.setattr(Trainer, "training_step", None)
    again, model, _ = fit_tiny(recipe, tmp_path, validation=12)
    assert again.resumed_at == again.steps == whole.steps == 8
    assert (again.curve, again.best_step, again.stopped_early) == (whole.curve, 4, stopping is not None)
    assert largest_difference(model, expected) == 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_same_seed_gives_the_same_bytes(method: str, tiny_model: Path, tmp_path: Path) -> None:
    """Not a bit differs in order, dropout and the fresh head.

    Another seed is another model.
    """
    recipe = recipe_of(tiny_model, method)
    models = [
        fit_tiny(recipe.model_copy(update={"seed": seed}), tmp_path / str(number))[1]
        for number, seed in enumerate((3, 3, 4))
    ]
    same, other = zip(*(weights(model) for model in models[:2]), strict=True), weights(models[2])
    assert all(left.numpy().tobytes() == right.numpy().tobytes() for left, right in same)
    assert any(not torch.equal(left, right) for left, right in zip(weights(models[0]), other, strict=True))


def test_a_checkpoint_holds_all_that_a_resumed_run_needs(tiny_model: Path, tmp_path: Path) -> None:
    fit_tiny(recipe_of(tiny_model, checkpoint_steps=3), tmp_path)
    checkpoint = last_whole_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    names = {path.name for path in checkpoint.iterdir()}
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= names
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == 6
