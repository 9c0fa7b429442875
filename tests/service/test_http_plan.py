"""A pod that cannot run its plan serves fp32, and says why at /info, in its metrics and once in its log."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from bentune.bundle.files import write_json
from bentune.bundle.hardware import describe
from bentune.bundle.plan import CPU, FP32, Entry, Plan, scores_key

MISSING = "MissingExecutionProvider"


def entry(variant: str, provider: str, speed: float) -> Entry:
    measured = {"inputs_per_second": speed, "lone_ms": 1.0, "padding": 0.0}
    return Entry(variant=variant, provider=provider, slots=1, threads=1, token_budget=300 + int(speed), **measured)


PLAN = Plan(
    variant="int8-nncf",
    provider=MISSING,
    cpu=describe(),
    token_budget=300,
    measured=(entry("int8-nncf", MISSING, 90), entry("int8-static", CPU, 80), entry(FP32, CPU, 40)),
)


@pytest.fixture(scope="module")
def fallen_back(share_bundle: Callable[..., str], serve: Callable[..., AbstractContextManager[Any]]) -> Iterator[Any]:
    """Yield a server of a bundle whose first two variants cannot serve here.

    The winner needs a provider that is missing, and the second gives other scores here.
    """

    def change(root: Path) -> None:
        for variant in ("int8-nncf", "int8-static"):
            shutil.copyfile(root / "model/fp32.onnx", root / f"model/{variant}.onnx")
        rows = [json.loads(line) for line in (root / "golden.jsonl").read_text().splitlines()]
        for row in rows:
            fp32 = row["scores"][scores_key(FP32, CPU)]
            row["scores"] |= {scores_key("int8-static", CPU): fp32[::-1]}
        (root / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_json(root / "plan.json", PLAN)

    with serve(".", "--arg", f"model={share_bundle('fallen-back', change)}") as server:
        server.until_status("/readyz", 200)
        yield server


def test_it_serves_fp32(fallen_back: Any) -> None:
    answers = fallen_back.predict(["a cat near the dog", "bread and cheese", "some hammer"]).json()
    assert [answer[0]["label"] for answer in answers] == ["animal", "food", "tool"]


def test_info_shows_what_runs_and_why(fallen_back: Any) -> None:
    info = fallen_back.client.get("/info").json()
    plan = info["plan"]
    assert (plan["variant"], plan["provider"], plan["threads"]) == (FP32, CPU, 1)
    assert (plan["slots"], plan["token_budget"]) == (describe().cores, 340), "the budget that was measured for fp32"
    assert plan["measured_on"] == describe().model_dump(mode="json")
    assert plan["fallbacks"].keys() == {"provider", "golden"}
    assert plan["fallbacks"]["provider"] == f"int8-nncf on {MISSING} with 1 x 1 cores: the provider is not installed"
    assert plan["fallbacks"]["golden"].startswith(f"int8-static on {CPU}: ")
    assert "of 12 golden rows got other scores" in plan["fallbacks"]["golden"]
    assert (info["ready"], info["golden"]["failed"], info["max_batch_tokens"]) == (True, 0, 340)


def test_the_metrics_show_it_by_reason(fallen_back: Any) -> None:
    found = {
        reason: fallen_back.metric("bentune_plan_fallback", reason=reason)
        for reason in ("cores", "isa", "provider", "golden")
    }
    assert found == {"cores": 0, "isa": 0, "provider": 1, "golden": 1}
    assert fallen_back.metric("bentune_model_info", variant=FP32, provider=CPU) == 1
    assert fallen_back.metric("bentune_model_info", variant="int8-nncf") == 0


def test_each_reason_is_logged_once(fallen_back: Any) -> None:
    printed = fallen_back.printed()
    assert printed.count("does not run as planned") == 2
    for reason in ("provider", "golden"):
        assert printed.count(f"fallen-back:1 does not run as planned ({reason}): ") == 1
