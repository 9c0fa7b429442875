"""The canary's analysis on a real Prometheus: of equal versions, of one that learned nonsense, of one that fails."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canary import Analysis, home, prometheus, scraped, until, verdict
from handmade import VERSION, clueless_weights
from shared import build_bento, store_handmade
from tiny import sentences

from rollout.load.generator import Body, LoadTarget, closed_loop
from rollout.load.generator import run as run_load
from rollout.server.server import running

LOOKS = 5
METRICS = {"error-rate", "latency-p99", "prediction-shift", "confidence-drop"}


@pytest.fixture(scope="module")
def template(render: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    spec = render("overlays/dev", "monitoring", "canary-argo").one("AnalysisTemplate")["spec"]
    return {metric["name"]: metric for metric in spec["metrics"]}


@pytest.fixture(scope="module")
def nonsense_tag(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Store a version that learned nonsense and return its tag.

    It gives nearly the same answer to any text. It passes every gate, although it is clueless.
    """
    store_handmade("nonsense", weights=clueless_weights())
    build_bento(tag := f"nonsense:{VERSION}", tmp_path_factory.mktemp("nonsense"))
    return tag


def bodies(texts: int) -> list[Body]:
    rows = [text for text, _ in sentences(400, seed=7)]
    return [
        Body(json.dumps({"inputs": rows[start : start + texts], "truncate": True}).encode(), inputs=texts)
        for start in range(0, len(rows) - texts, texts)
    ]


def test_good_versions_pass_and_bad_ones_do_not(
    template: dict[str, dict[str, Any]], tiny_tag: str, nonsense_tag: str, tmp_path: Path
) -> None:
    """The analysis judges four versions against the stable one.

    Five servers run: the stable version, the same again, another model, one that is late, one that is overloaded.
    """
    versions = {
        "stable": (tiny_tag, {}),
        "same": (tiny_tag, {}),
        "nonsense": (nonsense_tag, {}),
        # Nothing is answered within a millisecond.
        "late": (tiny_tag, {"BENTUNE_REQUEST_TIMEOUT_MS": "1"}),
        "slow": (tiny_tag, {}),
    }
    with ExitStack() as stack:
        servers = {}
        for name, (tag, env) in versions.items():
            servers[name] = stack.enter_context(running(tag, env=env | {"BENTOML_HOME": str(home(tmp_path / name))}))
        client = stack.enter_context(prometheus(tmp_path, servers))
        until(lambda: scraped(client, len(servers)), "all were scraped")
        analysis = Analysis(template, client)
        assert set(analysis.metrics) == METRICS
        # Nobody has asked them anything.
        assert set(analysis.judged("same").values()) == {"inconclusive"}
        # As `initialDelay` gives them time for.
        while "inconclusive" in analysis.judged("same").values():
            ask_all(servers)
        looks: dict[str, list[dict[str, str]]] = {name: [] for name in servers if name != "stable"}
        for _ in range(LOOKS):
            ask_all(servers)
            for name, judged in looks.items():
                judged.append(analysis.judged(name))
        values = {name: {metric: analysis.value(metric, name) for metric in METRICS} for name in looks}
    found = {
        name: {metric: ended(template[metric], [look[metric] for look in judged]) for metric in METRICS}
        for name, judged in looks.items()
    }
    assert set(found["same"].values()) == {"successful"}, values
    assert found["nonsense"]["error-rate"] == "successful", values
    assert found["nonsense"]["prediction-shift"] == found["nonsense"]["confidence-drop"] == "failed", values
    assert found["late"]["error-rate"] == "failed", values
    assert found["slow"]["latency-p99"] == "failed", values
    assert found["slow"]["error-rate"] == found["slow"]["prediction-shift"] == "successful", values


def ask_all(servers: dict[str, str]) -> None:
    """Load all servers at once and wait for two scrapes.

    All are loaded together, so that the machine's other work is the same for all.
    """

    def load(name: str) -> None:
        clients, texts = (24, 32) if name == "slow" else (2, 4)
        run_load(closed_loop(LoadTarget(servers[name]), bodies(texts), clients=clients, seconds=3))

    with ThreadPoolExecutor(len(servers)) as pool:
        list(pool.map(load, servers))
    time.sleep(1.2)


def ended(metric: dict[str, Any], looks: list[str]) -> str:
    """Return the result that Argo Rollouts gives a measurement after these looks."""
    if looks.count("failed") > metric["failureLimit"]:
        return "failed"
    return "inconclusive" if looks.count("inconclusive") > metric["inconclusiveLimit"] else "successful"


def test_a_bad_look_is_not_outvoted_by_unknown_ones(template: dict[str, dict[str, Any]]) -> None:
    for metric in template.values():
        unknown = ["inconclusive"] * (metric["count"] - 1)
        assert ended(metric, ["failed", *unknown]) == "inconclusive"


@pytest.mark.parametrize("labels", [2, 5, 50])
def test_chance_alone_seldom_looks_like_a_shift(labels: int, template: dict[str, dict[str, Any]]) -> None:
    """At most one of a thousand pairs of samples of one version fails.

    There are 10,000 pairs of 500 answers of one version each, computed as the query does.
    """
    generator, answers, looks = np.random.default_rng(labels), 500, 10_000
    assert ">= 500" in template["prediction-shift"]["provider"]["prometheus"]["query"]
    shares = generator.dirichlet(np.ones(labels), size=looks)
    canary, stable = (generator.multinomial(answers, shares) / answers for _ in range(2))
    pooled = (canary + stable) / 2
    chance = np.sqrt(2 / np.pi * pooled * (1 - pooled) * (2 / answers))
    shift = 0.5 * (np.abs(canary - stable) - chance).sum(axis=1)
    failed = [verdict(template["prediction-shift"], [value]) == "failed" for value in shift]
    assert sum(failed) <= looks / 1000
    # A twentieth of the traffic moved to another label is let through, and a fifth never.
    moved = canary.copy()
    most = canary.argmax(axis=1)
    rows = np.arange(looks)
    moved[rows, most] -= 0.2
    moved[rows, (most + 1) % labels] += 0.2
    kept = canary[rows, most] >= 0.4
    pooled = (moved + stable) / 2
    chance = np.sqrt(2 / np.pi * np.clip(pooled * (1 - pooled), 0, None) * (2 / answers))
    shift = 0.5 * (np.abs(moved - stable) - chance).sum(axis=1)
    assert labels == 50 or (shift[kept] > 0.1).mean() > 0.95


def test_the_analysis_of_the_rollout_is_there_and_gets_its_arguments(render: Callable[..., Any]) -> None:
    rendered = render("overlays/production", "canary-argo", more={"nameSuffix": "-news"})
    rollout, analysis = rendered.one("Rollout"), rendered.one("AnalysisTemplate")
    assert rollout["spec"]["workloadRef"]["name"] == rendered.one("Deployment")["metadata"]["name"] == "bentune-news"
    assert rollout["spec"]["selector"] == rendered.one("Deployment")["spec"]["selector"]
    steps = rollout["spec"]["strategy"]["canary"]["steps"]
    assert [step["setWeight"] for step in steps[::2]] == [10, 30, 60]
    for step in steps[1::2]:
        assert step["analysis"]["templates"] == [{"templateName": analysis["metadata"]["name"]}]
        given = {one["name"]: one["valueFrom"]["podTemplateHashValue"] for one in step["analysis"]["args"]}
        assert given == {"canary": "Latest", "stable": "Stable"}
    asked = {name for one in analysis["spec"]["metrics"] for name in re.findall(r"{{args\.(\w+)}}", json.dumps(one))}
    assert asked == {one["name"] for one in analysis["spec"]["args"]} == {"canary", "stable"}
    # The label that the queries go by comes from the pods.
    (label,) = rendered.one("ServiceMonitor")["spec"]["podTargetLabels"]
    assert label.replace("-", "_") in json.dumps(analysis)
    target = {"apiVersion": rollout["apiVersion"], "kind": "Rollout", "name": "bentune-news"}
    assert rendered.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"] == target
    keda = render("overlays/dev", "autoscale-keda", "canary-argo").one("ScaledObject")
    assert keda["spec"]["scaleTargetRef"]["kind"] == "Rollout"
