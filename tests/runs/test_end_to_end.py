"""The demo's recipe, shortened: the real encoder, real articles, real commands, a real server."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from apart import Apart
from command import ask

ROOT = Path(__file__).parent.parent.parent
RECIPE = ROOT / "recipes/bbc-news.yaml"
TEST_ROWS = 180
SHORT = (
    *("--set", "name=bbc-short", "--set", "max_tokens=48", "--set", f"data.rows={{train: 360, test: {TEST_ROWS}}}"),
    *("--set", "verify.rows=40", "--set", "evaluate.resamples=500"),
    # A budget that each variant keeps at once: tests/training/plan has what is done where one does not.
    *("--set", "plan.seconds=0.1", "--set", f"plan.rows={TEST_ROWS}", "--set", "plan.calibration_rows=16"),
    *("--set", "plan.accuracy_budget=10"),
)


def bentune(*arguments: str, cwd: Path) -> dict[str, Any]:
    with contextlib.chdir(cwd):
        done = ask(*arguments, "--json")
    assert done.code == 0, done.out + done.err
    result: dict[str, Any] = done.json
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("end-to-end")


@pytest.fixture(scope="module")
def finished(place: Path) -> dict[str, Any]:
    """Run the recipe in a process of its own and return the printed result.

    The commands after it run in the tests' process, which is faster.
    """
    with Apart(place / "said", "run", RECIPE, *SHORT, "--json", cwd=place) as command:
        assert command.code(600) == 0, command.out + command.err
        result: dict[str, Any] = command.json
        return result


def test_every_stage_ran_and_the_model_learned(finished: dict[str, Any]) -> None:
    summaries = {stage["stage"]: stage["summary"] for stage in finished["stages"]}
    assert list(summaries) == ["data", "train", "merge", "evaluate", "export", "verify", "plan", "package"]
    assert summaries["data"]["rows"] == {"train": 360, "test": TEST_ROWS}
    assert summaries["data"]["dropped"]["not UTF-8"]["samples"] == ["sports/199.txt"]
    assert summaries["train"]["parameters"]["trainable"] < 0.05 * summaries["train"]["parameters"]["total"]
    assert summaries["evaluate"]["tuned"]["value"] >= 0.85 > 0.5 > summaries["evaluate"]["base"]["value"]
    assert max(summaries["verify"][hop] for hop in ("merge", "export", "batch")) < 1e-4


def test_the_second_run_redoes_nothing(finished: dict[str, Any], place: Path) -> None:
    again = bentune("run", str(RECIPE), *SHORT, cwd=place)
    assert [stage["stage"] for stage in again["stages"] if stage["redone"]] == []
    assert again["run"] == finished["run"]


def test_the_bento_serves_the_articles(finished: dict[str, Any], place: Path) -> None:
    found = bentune("smoke", "bbc-short", "--rows", "5", cwd=place)
    # A row of each label; int8 may see one of them otherwise, after so short a training.
    assert len({answer[0]["label"] for answer in found["answers"]} & set(found["info"]["labels"])) >= 4
    assert found["info"]["evidence"]["rows"] == TEST_ROWS


def test_offline_scores_are_the_accuracy_that_was_measured(finished: dict[str, Any], place: Path) -> None:
    import pyarrow.parquet as pq

    stages = {stage["stage"]: stage for stage in finished["stages"]}
    rows = pq.read_table(place / stages["data"]["directory"] / "test.parquet").to_pylist()
    labels = stages["data"]["summary"]["labels"]
    lines = (json.dumps({"text": row["text"]}) for row in rows)
    (place / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    bentune("predict", "--model", "bbc-short", "--input", "rows.jsonl", "--output", "out.jsonl", cwd=place)
    answers = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    right = [
        answer["prediction"][0]["label"] == labels[row["label"]] for answer, row in zip(answers, rows, strict=True)
    ]
    assert [answer["row"] for answer in answers] == list(range(TEST_ROWS))
    # The plan looked at the same rows, each alone; in batches, int8 may round one or two of them otherwise.
    plan = bentune("plan", str(RECIPE), *SHORT, "--explain", cwd=place)
    checks = {(check["variant"], check["provider"]): check for check in plan["checks"]}
    chosen = checks[plan["variant"], plan["provider"]]
    assert chosen["rows"] == TEST_ROWS
    assert sum(right) / len(right) == pytest.approx(chosen["accuracy"], abs=2 / TEST_ROWS + 1e-9)
    fp32 = checks["fp32", "CPUExecutionProvider"]
    assert fp32["accuracy"] == pytest.approx(stages["evaluate"]["summary"]["tuned"]["value"], abs=1e-9)


def test_the_plan_tried_every_variant_and_chose_one_within_the_budget(finished: dict[str, Any], place: Path) -> None:
    plan = bentune("plan", str(RECIPE), *SHORT, "--explain", cwd=place)
    tried = {check["variant"]: check for check in plan["checks"] if check["provider"] == "CPUExecutionProvider"}
    assert list(tried) == ["fp32", "int8-dynamic", "int8-static", "int8-nncf"]
    assert not [check for check in tried.values() if "could not be built" in check["problem"]]
    assert not [check for check in tried.values() if check["kept_fp32"]]
    assert tried["fp32"]["megabytes"] > 1.5 * tried["int8-nncf"]["megabytes"]
    measured = {entry["variant"] for entry in plan["measured"]}
    assert measured == {variant for variant, check in tried.items() if not check["problem"]}
    assert all(check["accuracy_loss"] <= 10 for variant, check in tried.items() if variant in measured)
