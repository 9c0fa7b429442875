"""The stage `plan` on a real run: what it writes agrees with what it measured, is packaged, and is served."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import pytest
from command import ask

from bentune.bundle.baseline import Baseline
from bentune.bundle.hardware import Cpu, describe
from bentune.bundle.manifest import GoldenRow, open_bundle
from bentune.bundle.plan import CPU, FP32, Plan, model_file, scores_key
from service.engine.golden import replay
from service.engine.predictor import Predictor, Session
from service.engine.providers import available
from service.tasks.registry import task_of
from training.plan.baseline import baseline
from training.plan.search import first_round
from training.plan.variants import BUILDERS
from training.tasks.rows import read_rows

VARIANTS = ("int8-dynamic", "int8-static")
# A row of 60 is 1.67 points: a flip or two must not decide what is tested here.
OPTIONS = ("--set", f"plan.variants=[{', '.join(VARIANTS)}]", "--set", "plan.accuracy_budget=10")


@pytest.fixture(scope="module")
def runs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("planned")
    shutil.copytree(tiny_run, directory / tiny_run.parent.name / tiny_run.name)
    return directory


@pytest.fixture(scope="module")
def finished(runs: Path, tiny_recipe: Path) -> Iterator[Any]:
    """Yield the JSON of `bentune run` for the tiny run, now with variants.

    The run goes on from its plan.
    """
    answer = ask("run", tiny_recipe, "--runs", runs, *OPTIONS, "--json")
    assert answer.code == 0, answer.out
    yield answer.json
    forget(answer.json["stages"][-1]["summary"])


def forget(artifacts: Any) -> None:
    bentoml.bentos.delete(artifacts["bento"])
    bentoml.models.delete(artifacts["model"])


@pytest.fixture(scope="module")
def run(finished: Any) -> Path:
    return Path(finished["run"])


@pytest.fixture(scope="module")
def plan(run: Path) -> Plan:
    return Plan.model_validate_json((run / "plan/plan.json").read_bytes())


@pytest.fixture(scope="module")
def golden(run: Path) -> list[GoldenRow]:
    return [GoldenRow.model_validate_json(line) for line in (run / "plan/golden.jsonl").read_text().splitlines()]


def pairs(plan: Plan) -> set[tuple[str, str]]:
    return {(entry.variant, entry.provider) for entry in plan.measured}


def test_only_the_plan_and_the_package_were_redone(finished: Any) -> None:
    assert [stage["stage"] for stage in finished["stages"] if stage["redone"]] == ["plan", "package"]


def test_the_plan_is_the_first_line_of_its_own_table(plan: Plan, finished: Any) -> None:
    best = plan.measured[0]
    chosen = (plan.variant, plan.provider, plan.slots, plan.threads, plan.token_budget)
    assert chosen == (best.variant, best.provider, best.slots, best.threads, best.token_budget)
    assert best.cores == describe().cores
    assert finished["stages"][-2]["summary"] == best.model_dump(mode="json")
    assert plan.cpu == describe()


def test_everything_that_passed_was_measured_and_nothing_else(plan: Plan) -> None:
    checked = [(found.variant, found.provider) for found in plan.checks]
    assert sorted(checked) == sorted((variant, provider) for variant in (FP32, *VARIANTS) for provider in available())
    assert pairs(plan) == {(found.variant, found.provider) for found in plan.checks if not found.problem}
    asked = {
        (one.variant, one.provider, one.slots, one.threads, one.token_budget)
        for one in first_round(plan.checks, describe().cores)
    }
    got = {(one.variant, one.provider, one.slots, one.threads, one.token_budget) for one in plan.measured}
    assert asked <= got
    assert all(found.rows == 60 for found in plan.checks)


def test_golden_rows_have_scores_for_each_way_that_a_pod_may_take(
    plan: Plan, golden: list[GoldenRow], run: Path, tiny_bundle: Path
) -> None:
    assert len(golden) == 12
    keys = {scores_key(variant, provider) for variant, provider in pairs(plan)}
    assert len(keys) >= 2
    assert all(row.scores.keys() == keys for row in golden)
    task = task_of(open_bundle(tiny_bundle))
    for variant, provider in pairs(plan):
        model = run / ("export" if variant == FP32 else "plan") / model_file(variant)
        predictor = Predictor(task, Session(model, provider, 1))
        found = replay(predictor, golden, scores_key(variant, provider))
        assert (found.failed, found.largest_difference < 1e-5) == ([], True), variant
    # The scores of fp32 that verify proved are not measured again, and nothing else of a row changes.
    proven = [GoldenRow.model_validate_json(line) for line in (run / "verify/golden.jsonl").read_text().splitlines()]
    fp32 = scores_key(FP32, CPU)
    assert [row.model_copy(update={"scores": {fp32: row.scores[fp32]}}) for row in golden] == proven


def test_scores_of_a_variant_are_its_own(golden: list[GoldenRow]) -> None:
    assert any(row.scores[scores_key("int8-static", CPU)] != row.scores[scores_key(FP32, CPU)] for row in golden)


def test_the_baseline_is_of_what_the_pods_run(plan: Plan, run: Path, tiny_bundle: Path) -> None:
    """The baseline covers every test row as the winner scores it, in any variant."""
    task = task_of(open_bundle(tiny_bundle))
    texts = read_rows(run / "data/test.parquet").texts
    tokens = [task.encoder.encode(text, truncate=True) for text in texts]
    directory = run / ("export" if plan.variant == FP32 else "plan")
    predictor = Predictor(task, Session(directory / model_file(plan.variant), plan.provider, 1))
    logits = np.concatenate([predictor.logits([row]) for row in tokens])
    assert len(texts) == 60
    expected = baseline(tokens, task.encoder.settings, logits, seed=42, target=task.target)
    assert Baseline.model_validate_json((run / "plan/baseline.json").read_bytes()) == expected


def test_only_what_a_pod_may_be_sent_to_is_kept(plan: Plan, run: Path) -> None:
    written = {path.relative_to(run / "plan").as_posix() for path in (run / "plan").rglob("*") if path.is_file()}
    models = {model_file(variant) for variant in plan.variants - {FP32}}
    assert models
    assert written == {"plan.json", "golden.jsonl", "baseline.json", "report.md", "pareto.png", "stage.json", *models}
    assert {path.name for path in (run / "package").iterdir()} >= {"artifacts.json"}


def test_the_report_holds_the_verdict(plan: Plan, run: Path) -> None:
    page = (run / "plan/report.md").read_text()
    assert f"{plan.variant} on {plan.provider} wins" in page
    assert page.count("\n| ") == 2 * 2 + len(plan.checks) + len(plan.measured)
    assert (run / "plan/pareto.png").read_bytes()[:4] == b"\x89PNG"


# Consequences of a plan.


def test_the_bundle_holds_the_plan_its_models_and_its_scores(
    plan: Plan, golden: list[GoldenRow], finished: Any
) -> None:
    bundle = open_bundle(Path(finished["stages"][-1]["summary"]["bundle"]))
    assert (bundle.plan, bundle.golden) == (plan, golden)
    assert {name for name in bundle.manifest.files if name.startswith("model/")} == set(map(model_file, plan.variants))


def test_the_bento_serves_what_the_plan_chose(plan: Plan, finished: Any) -> None:
    """The smoke test also compares the answers with the golden scores of what runs."""
    answer = ask("smoke", finished["stages"][-1]["summary"]["bento"], "--rows", 3, "--json")
    assert answer.code == 0, answer.out
    shown = answer.json["info"]["plan"]
    assert (shown["variant"], shown["provider"], shown["slots"]) == (plan.variant, plan.provider, plan.slots)
    assert (shown["fallbacks"], shown["measured_on"]) == ({}, describe().model_dump(mode="json"))


def test_a_second_run_has_nothing_to_do(finished: Any, runs: Path, tiny_recipe: Path) -> None:
    again = ask("run", tiny_recipe, "--runs", runs, *OPTIONS, "--json").json
    assert [stage["stage"] for stage in again["stages"] if stage["redone"]] == []
    plain = ask("plan", tiny_recipe, "--runs", runs, *OPTIONS)
    assert (plain.code, "nothing changed" in plain.err) == (0, True)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A directory of runs that a test may change."""
    shutil.copytree(run, tmp_path / "runs" / run.parent.name / run.name)
    return tmp_path / "runs"


def plan_in(runs: Path) -> Plan:
    (file,) = runs.glob("*/*/plan/plan.json")
    return Plan.model_validate_json(file.read_bytes())


def test_on_another_cpu_the_plan_is_measured_again_and_packaged(
    copy: Path, plan: Plan, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Cpu(model="another", isa=describe().isa, cores=1)
    for place in ("training.pipeline.pipeline", "training.plan.stage"):
        monkeypatch.setattr(f"{place}.describe", lambda: other)
    answer = ask("run", tiny_recipe, "--runs", copy, *OPTIONS, "--json")
    assert answer.code == 0, answer.out
    forget(answer.json["stages"][-1]["summary"])
    assert [stage["stage"] for stage in answer.json["stages"] if stage["redone"]] == ["plan", "package"]
    measured = plan_in(copy)
    assert measured.cpu == other != plan.cpu
    assert {entry.cores for entry in measured.measured} == {1}
    assert (measured.slots, measured.threads) == (1, 1)


def test_a_variant_that_cannot_be_built_is_refused_and_left_out(
    copy: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("no such operator [/x]\nand more")

    monkeypatch.setitem(BUILDERS, "int8-static", fail)
    answer = ask("plan", tiny_recipe, "--runs", copy, *OPTIONS, "--force")
    assert answer.code == 0
    found = plan_in(copy)
    (refused,) = [one for one in found.checks if one.variant == "int8-static"]
    assert "NotImplementedError" in refused.problem
    assert found.variants == {FP32, "int8-dynamic"}
    assert sorted(path.name for path in copy.glob("*/*/plan/model/*")) == ["int8-dynamic.onnx"]
    said = " ".join(answer.err.split())
    problem = "it could not be built: NotImplementedError: no such operator [/x]"
    assert f"int8-static on CPUExecutionProvider was refused: {problem}" in said
    assert "wins with" in said


@pytest.mark.parametrize("option", ["plan.seconds=0", "plan.rows=7", "plan.variants=[int4]", "plan.accuracy_budget=-1"])
def test_settings_out_of_range_are_refused(option: str, copy: Path, tiny_recipe: Path) -> None:
    answer = ask("plan", tiny_recipe, "--runs", copy, "--set", option)
    assert answer.code == 2
    assert option.partition("=")[0] in answer.err


def test_nothing_is_left_of_a_plan_that_broke(
    copy: Path, plan: Plan, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broke(*_: object) -> None:
        raise RuntimeError("broke")

    monkeypatch.setattr("training.plan.stage.measure", broke)
    assert ask("plan", tiny_recipe, "--runs", copy, *OPTIONS, "--force").code == 3
    assert plan_in(copy) == plan
    assert list(copy.glob("*/*/plan.partial")) == []


# Explanations of a plan.


def test_explain_prints_the_winner_and_each_loser_without_measuring(
    finished: Any, plan: Plan, runs: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be done")

    monkeypatch.setattr("training.pipeline.pipeline.run_stage", never)
    answer = ask("plan", tiny_recipe, "--runs", runs, *OPTIONS, "--explain")
    assert (answer.code, answer.err) == (0, "")
    said = " ".join(answer.out.split())
    assert f"{plan.variant} on {plan.provider} wins with" in said
    for variant, provider in {(found.variant, found.provider) for found in plan.checks}:
        assert (variant, provider) == (plan.variant, plan.provider) or f"{variant} on {provider} lost: " in said
    answer = ask("plan", tiny_recipe, "--runs", runs, *OPTIONS, "--explain", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert Plan.model_validate_json(json.dumps(answer.json)) == plan


def test_there_is_nothing_to_explain_before_there_is_a_plan(
    copied: Callable[[Path], Path], tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    runs = copied(tiny_run)
    shutil.rmtree(runs / tiny_run.parent.name / tiny_run.name / "plan")
    answer = ask("plan", tiny_recipe, "--runs", runs, "--explain")
    assert (answer.code, answer.out) == (2, "")
    assert "plan/plan.json does not exist: run `bentune plan` first, or `bentune run`" in answer.err
    answer = ask("plan", tiny_recipe, "--runs", runs, "--explain", "--json")
    assert (answer.code, answer.json["exit_code"]) == (2, 2)
    # A run that was never started is not started by asking.
    assert ask("plan", tiny_recipe, "--runs", tmp_path / "none", "--explain").code == 2
    assert [path for path in (tmp_path / "none").rglob("*") if path.is_file()] == []
