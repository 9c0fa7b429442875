"""Pruning after training: a whole smaller model that every later stage takes, resumed in the phase it was in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import pytest
import torch
from architectures import classifier
from safetensors.torch import load_file
from tiny import Quiet
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bentune.bundle.errors import BentuneError, InputError
from training.pipeline.pipeline import run_all, run_stage
from training.pipeline.run_dir import RunDir
from training.pipeline.stage import Context
from training.recipe.file import load_recipe
from training.train import stage as train
from training.train.compress import pruning

SHORT = ["train.epochs=2", "train.checkpoint_steps=10", "prune.epochs=2", "prune.amount=0.5"]  # 30 and 30 steps
HEAD = ("classifier.weight", "classifier.bias")


@pytest.fixture
def asked(tiny_recipe: Path, tiny_run: Path, context: Callable[..., Context]) -> Callable[..., Context]:
    """Return a function that makes the stage's context for the tiny rows."""

    def make(*how: str) -> Context:
        return context(load_recipe(tiny_recipe, [*SHORT, *how]).recipe, data=tiny_run / "data")

    return make


@pytest.fixture
def fit(asked: Callable[..., Context]) -> Callable[..., tuple[Context, dict[str, Any]]]:
    """Run the stage."""

    def run(*how: str) -> tuple[Context, dict[str, Any]]:
        given = asked(*how)
        return given, train.run(given).written()

    return run


def said(context: Context) -> list[Any]:
    report = context.report
    assert isinstance(report, Quiet)
    return report.said


@pytest.mark.parametrize("method", ["full", "lora"])
def test_heads_and_neurons_are_gone_from_a_whole_model(method: str, fit: Any) -> None:
    context, summary = fit(f"method={method}")
    pruned = summary["pruned"]
    assert (pruned["heads"], pruned["heads_before"], pruned["neurons"], pruned["neurons_before"]) == (2, 4, 64, 128)
    names = sorted(path.name for path in context.work.iterdir())
    assert names == ["base.json", "dense", "labels.json", "model", "target.json", "tokenizer"]
    model = AutoModelForSequenceClassification.from_pretrained(context.work / "model")
    assert sum(weight.numel() for weight in model.parameters()) == pruned["parameters"] < pruned["parameters_before"]
    assert model.config.intermediate_size == 32
    assert sorted(len(heads) for heads in model.config.pruned_heads.values()) == [1, 1]
    assert (pruned["kind"], pruned["amount"], pruned["steps"], pruned["resumed_at_step"]) == ("structured", 0.5, 30, 0)
    assert pruned["learning_rate"] == (0.005 if method == "full" else 5e-5)
    assert summary["steps"] == 30
    assert summary["parameters"]["trainable"] == summary["parameters"]["total"] or method == "lora"
    assert any(
        line.startswith("pruned: 2 of 4 heads and 64 of 128 neurons removed, ") for line in map(str, said(context))
    )


def test_zeros_are_in_the_saved_weights(fit: Any) -> None:
    context, summary = fit("prune.kind=magnitude", "prune.amount=0.7")
    weights = load_file(context.work / "model/model.safetensors")
    dense = load_file(context.work / "dense/model.safetensors")
    assert weights.keys() == dense.keys()
    linear = [name for name in weights if weights[name].dim() == 2 and "embeddings" not in name and name not in HEAD]
    count = sum(weights[name].numel() for name in linear)
    zero = sum(int((weights[name] == 0).sum()) for name in linear) / count
    assert zero == pytest.approx(0.7, abs=1e-3) == summary["pruned"]["zeros"]
    assert sum(int((dense[name] == 0).sum()) for name in linear) == 0
    # The weights that were left were tuned again.
    name = "bert.encoder.layer.0.attention.self.query.weight"
    left = weights[name] != 0
    assert (weights[name][left] != dense[name][left]).float().mean() > 0.9


def clean(work: Path) -> None:
    """Delete the files that the pipeline deletes after a failure."""
    kept = train.worth_keeping(work)
    for path in work.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("kind", ["structured", "magnitude"])
def test_an_interrupted_run_goes_on_in_the_phase_that_it_was_in(
    kind: str, fit: Any, asked: Callable[..., Context], stop_at: Callable[[int], None]
) -> None:
    how = (f"prune.kind={kind}", "method=lora")
    context, whole = fit(*how)
    expected = load_file(context.work / "model/model.safetensors")
    context = asked(*how)
    stop_at(15)
    with pytest.raises(KeyboardInterrupt):
        train.run(context)
    clean(context.work)
    assert {path.name for path in context.work.iterdir()} == {"checkpoints"}
    stop_at(20 + 15)  # twenty more steps of the first phase, fifteen of the second
    with pytest.raises(KeyboardInterrupt):
        train.run(context)
    assert "resuming from step 10" in said(context)
    clean(context.work)
    assert {path.name for path in context.work.iterdir()} >= {"dense", "pruned", "pruned-checkpoints"}
    stop_at(21)  # never, if only the last twenty steps of the second phase are left
    summary = train.run(context).written()
    assert summary["pruned"]["resumed_at_step"] == 10
    weights = load_file(context.work / "model/model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.allclose(weights[name], expected[name], atol=1e-6) for name in weights)
    assert summary["curve"] == whole["curve"]
    assert summary["pruned"] | {"resumed_at_step": 0} == whole["pruned"]
    assert not (context.work / "checkpoints").exists()


def test_a_run_killed_between_the_phases_keeps_the_first(
    asked: Callable[..., Context], stop_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = asked()
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_prune", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train.run(context)
    (context.work / "pruned.partial").mkdir()  # not removed after SIGKILL
    stop_at(31)  # never: only the second phase is left
    assert train.run(context).written()["pruned"]["steps"] == 30
    assert sorted(path.name for path in context.work.iterdir()) == [
        "base.json",
        "dense",
        "labels.json",
        "model",
        "target.json",
        "tokenizer",
    ]


def test_a_loss_that_is_lost_after_pruning_is_told_so(asked: Callable[..., Context]) -> None:
    with pytest.raises(BentuneError, match=r"^after pruning: the training loss is no longer a number"):
        train.run(asked("prune.learning_rate=1e30"))


def test_what_cannot_be_pruned_is_refused_before_it_is_trained(
    asked: Callable[..., Context], tiny_tag: str, stop_at: Callable[[int], None], tmp_path: Path, tiny_model: Path
) -> None:
    stop_at(1)
    classifier("albert").base_model.save_pretrained(tmp_path / "albert")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "albert")
    with pytest.raises(InputError, match=r"^prune.kind: structured does not support the architecture albert"):
        train.run(asked(f"model={tmp_path / 'albert'}"))
    with pytest.raises(
        InputError, match=r"^prune.kind: structured would prune the parent's model a second time: start cold"
    ):
        train.run(asked(f"parent={tiny_tag}", "train.warm_start=true"))


def test_every_later_stage_takes_the_pruned_model(tiny_recipe: Path, tiny_tag: str, tmp_path: Path) -> None:
    """With a teacher too, up to the same bundle and gates."""
    how = ["method=lora", f"distill.teacher={tiny_tag}", "prune.epochs=4", "prune.learning_rate=0.005"]
    recipe = load_recipe(tiny_recipe, ["prune.amount=0.5", "name=smaller", *how]).recipe
    with RunDir.open(tmp_path / "runs", recipe.name) as run:
        told = {outcome.stage: outcome for outcome in run_all(recipe, run, Quiet())}
        assert not run_stage("train", recipe, run, Quiet()).redone
    evaluation = json.loads((told["evaluate"].directory / "evaluation.json").read_text())
    assert list(evaluation["compressed"]) == ["teacher", "dense"]
    for name, found in evaluation["compressed"].items():
        change = told["evaluate"].result.tuned.value - getattr(told["evaluate"].result, name).value
        assert found["difference"]["accuracy"]["value"] == pytest.approx(change)
    bundle = Path(told["package"].result.bundle)
    evidence = json.loads((bundle / "evidence.json").read_text())
    assert evidence["training"]["pruned"]["heads"] == 2
    assert [hop["problems"] for hop in evidence["parity"]["hops"]] == [[], [], []]
    dense = Path(bentoml.models.get(tiny_tag).path)
    assert (bundle / "model/fp32.onnx").stat().st_size < 0.8 * (dense / "model/fp32.onnx").stat().st_size
    assert evaluation["tuned"]["accuracy"]["value"] > 0.6
