"""Calibration: an over-confident model becomes less so, its answers stay, and everything after sees the new weights."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import ask
from safetensors.numpy import load_file, save_file
from tiny import Quiet, sentences, write_csv, write_recipe

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import GoldenRow
from bentune.bundle.plan import CPU, FP32, scores_key
from bentune.bundle.targets.one_label import softmax
from training.pipeline.pipeline import run_stage
from training.pipeline.run_dir import RunDir
from training.prove import evaluate
from training.prove.evaluation import Evaluation
from training.prove.temperature import Temperature
from training.recipe.file import load_recipe


def noisy(count: int) -> list[tuple[str, str]]:
    """Return rows in which two labels in five are drawn at random.

    A model that learns them by heart is too sure of all.
    """
    generator = random.Random(0)
    labels = sorted({label for _, label in sentences(3)})
    return [(text, generator.choice(labels) if generator.random() < 0.4 else label) for text, label in sentences(count)]


@pytest.fixture(scope="module")
def calibrated_recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    directory = tmp_path_factory.mktemp("calibrated")
    data = {"source": str(write_csv(directory / "rows.csv", noisy(300))), "split": {"test": 0.3, "validation": 0.3}}
    train = {"epochs": 25, "learning_rate": 0.005, "checkpoint_steps": 500}
    calibrate = {"temperature": True}
    return write_recipe(directory / "over.yaml", tiny_model, "", data=data, train=train, calibrate=calibrate)


@pytest.fixture(scope="module")
def calibrated_run(tmp_path_factory: pytest.TempPathFactory, calibrated_recipe: Path) -> Path:
    """Every stage but `package`; treat it as read-only (copy it to change it)."""
    recipe = load_recipe(calibrated_recipe).recipe
    with RunDir.open(tmp_path_factory.mktemp("calibrated-runs"), recipe.name) as run:
        for name in ("data", "train", "merge", "calibrate", "evaluate", "export", "verify", "plan"):
            run_stage(name, recipe, run, Quiet())
        return run.root


def temperature_of(run: Path) -> Temperature:
    return Temperature.model_validate_json((run / "calibrate/temperature.json").read_bytes())


def test_the_error_falls_and_the_answers_stay(calibrated_run: Path) -> None:
    fitted = temperature_of(calibrated_run)
    assert (fitted.layer, fitted.problem) == ("classifier", "")
    assert fitted.temperature > 1.5
    assert fitted.log_loss_after < fitted.log_loss_before
    evaluation = Evaluation.model_validate_json((calibrated_run / "evaluate/evaluation.json").read_bytes())
    scaled, tuned = evaluation.temperature, evaluation.tuned
    assert scaled is not None
    assert (scaled.temperature, scaled.rows) == (fitted.temperature, fitted.rows)
    assert tuned.calibration.error.value < scaled.before.error.value - 0.05
    assert scaled.error.value == pytest.approx(tuned.calibration.error.value - scaled.before.error.value)
    assert scaled.error.high < 0
    assert tuned.log_loss.value < scaled.log_loss_before.value
    assert sum(one.rows for one in scaled.before.bins) == sum(one.rows for one in tuned.calibration.bins) == tuned.rows


def test_the_merged_model_is_kept_as_it_was(calibrated_run: Path) -> None:
    before, after = (load_file(calibrated_run / f"{stage}/model/model.safetensors") for stage in ("merge", "calibrate"))
    temperature = temperature_of(calibrated_run).temperature
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    np.testing.assert_allclose(after["classifier.weight"] * temperature, before["classifier.weight"], rtol=1e-6)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        places = (calibrated_run / f"{stage}/model/{name}" for stage in ("merge", "calibrate"))
        assert len({place.read_bytes() for place in places}) == 1


def test_the_hop_is_in_the_chain_and_what_is_served_is_calibrated(calibrated_run: Path) -> None:
    hops = json.loads((calibrated_run / "verify/parity.json").read_text())["hops"]
    assert [hop["hop"] for hop in hops] == ["merge", "calibrate", "export", "batch"]
    assert [(hop["before"], hop["after"]) for hop in hops[1:3]] == [
        (f"merged / {temperature_of(calibrated_run).temperature:.4g}", "calibrated"),
        ("calibrated", "fp32 ONNX"),
    ]
    assert hops[1]["largest_difference"] < 1e-4
    # The golden rows, which `plan` completes, are surer without the temperature.
    temperature = temperature_of(calibrated_run).temperature
    served = load_file(calibrated_run / "calibrate/model/model.safetensors")["classifier.bias"]
    exported = onnx.load(calibrated_run / "export/model/fp32.onnx")
    (bias,) = (one for one in exported.graph.initializer if one.name.endswith("classifier.bias"))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(bias), served)
    lines = (calibrated_run / "plan/golden.jsonl").read_text().splitlines()
    scores = np.array([GoldenRow.model_validate_json(line).scores[scores_key(FP32, CPU)] for line in lines])
    sharpened = softmax((np.log(scores) * temperature).astype(np.float32))
    assert scores.max(axis=1).mean() < sharpened.max(axis=1).mean() - 0.03


@pytest.fixture
def copy(calibrated_run: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(calibrated_run) / calibrated_run.parent.name / calibrated_run.name


def other_temperature(run: Path) -> None:
    file = run / "calibrate/temperature.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 1.2}))


def not_divided(run: Path) -> None:
    shutil.copyfile(run / "merge/model/model.safetensors", run / "calibrate/model/model.safetensors")


def bias_lost(run: Path) -> None:
    file = run / "calibrate/model/model.safetensors"
    weights = load_file(file)
    save_file(weights | {"classifier.bias": weights["classifier.bias"] + 1}, file, metadata={"format": "pt"})


def no_number(run: Path) -> None:
    (run / "calibrate/temperature.json").write_text("{}")


@pytest.mark.parametrize("damage", [other_temperature, not_divided, bias_lost, no_number])
def test_damage_is_blamed_on_calibration(damage: Callable[[Path], None], copy: Path, calibrated_recipe: Path) -> None:
    damage(copy)
    answer = ask("verify", calibrated_recipe, "--runs", copy.parent.parent, "--json")
    assert (answer.code, answer.json["gate"]) == (1, "calibrate")
    assert "the hop `calibrate`" in answer.json["error"]


def test_what_is_evaluated_is_the_temperature_that_the_hop_proves(
    calibrated_run: Path, calibrated_recipe: Path, copy: Path, context: Callable[..., Any]
) -> None:
    """The stage's record has it too, and no hop would notice a change there."""
    record = json.loads((copy / "calibrate/stage.json").read_text())
    record["summary"]["temperature"] = 1.2
    (copy / "calibrate/stage.json").write_text(json.dumps(record))
    asked = context(
        load_recipe(calibrated_recipe).recipe, **{name: copy / name for name in ("data", "train", "calibrate")}
    )
    evaluate.run(asked)
    found = Evaluation.model_validate_json((asked.work / "evaluation.json").read_bytes())
    assert found.temperature is not None
    assert found.temperature.temperature == temperature_of(calibrated_run).temperature != 1.2


def test_without_it_the_chain_is_as_it_was(copy: Path, calibrated_recipe: Path) -> None:
    """The stage's files stay in the run and are not read."""
    runs = copy.parent.parent
    plain = [calibrated_recipe, "--runs", runs, "--json", "--set", "calibrate.temperature=false"]
    for stage in ("evaluate", "export"):
        assert ask(stage, *plain).json["redone"]
    assert ask("verify", *plain).json["redone"]
    hops = json.loads((copy / "verify/parity.json").read_text())["hops"]
    assert [hop["hop"] for hop in hops] == ["merge", "export", "batch"]
    assert json.loads((copy / "evaluate/evaluation.json").read_text())["temperature"] is None
    answer = ask("calibrate", *plain)
    assert (answer.code, answer.json["error"]) == (
        2,
        "calibrate: the recipe does not have this stage: set calibrate.temperature",
    )


def test_validation_rows_are_needed(tiny_recipe: Path) -> None:
    with pytest.raises(InputError, match=r"calibrate: temperature is fitted on validation rows: set data.split.valid"):
        load_recipe(tiny_recipe, ["calibrate.temperature=true"])


def test_a_temperature_that_the_rows_do_not_tell_is_said(
    calibrated_run: Path, calibrated_recipe: Path, context: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.prove import calibrate

    monkeypatch.setattr(
        calibrate,
        "fit_temperature",
        lambda *_: Temperature(temperature=1, rows=9, log_loss_before=0, log_loss_after=0, problem="nothing to tell"),
    )
    asked = context(load_recipe(calibrated_recipe).recipe, data=calibrated_run / "data", merge=calibrated_run / "merge")
    summary = calibrate.run(asked).written()
    assert asked.report.said == ["[yellow]![/] nothing to tell"]
    before, after = (
        load_file(calibrated_run / "merge/model/model.safetensors"),
        load_file(asked.work / "model/model.safetensors"),
    )
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert summary["temperature"] == 1
