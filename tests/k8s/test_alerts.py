"""Alerts, dashboard and scalers are PromQL that Prometheus understands, and each alert fires when it should."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
K8S = HERE.parent.parent / "k8s"


@pytest.fixture(scope="module")
def rules(render: Callable[..., Any]) -> list[dict[str, Any]]:
    groups = render("overlays/production").one("PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def promtool(missing: Callable[[str], Any]) -> Callable[..., str]:
    program = shutil.which("promtool") or missing("promtool")

    def run(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def write(path: Path, rules: list[dict[str, Any]]) -> str:
    path.write_text(yaml.safe_dump({"groups": [{"name": "bentune", "rules": rules}]}))
    return str(path)


def test_every_alert_says_what_it_is_and_what_to_do(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        assert all(len(text) > 20 for text in rule["annotations"].values()), rule["alert"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["for"]


def test_prometheus_understands_the_alerts(
    promtool: Callable[..., str], rules: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert f"{len(rules)} rules found" in promtool("check", "rules", write(tmp_path / "alerts.yaml", rules))


def test_prometheus_understands_what_scalers_and_dashboard_ask(
    promtool: Callable[..., str], render: Callable[..., Any], tmp_path: Path
) -> None:
    keda = render("overlays/dev", "autoscale-keda").one("ScaledObject")
    queries = [trigger["metadata"]["query"] for trigger in keda["spec"]["triggers"] if trigger["type"] == "prometheus"]
    dashboard = json.loads((K8S / "components/monitoring/dashboard.json").read_text())
    queries += [
        target["expr"].replace("$__rate_interval", "5m") for panel in dashboard["panels"] for target in panel["targets"]
    ]
    for rule in yaml.safe_load((K8S / "components/autoscale-hpa/prometheus-adapter.yaml").read_text())["rules"]:
        query = rule["metricsQuery"].replace("<<.Series>>", "bentune_queue_requests")
        queries.append(query.replace("<<.LabelMatchers>>", 'namespace="n"').replace("<<.GroupBy>>", "pod"))
        assert "<<" not in queries[-1]
        queries.append(rule["seriesQuery"])
    recorded = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    assert f"{len(queries)} rules found" in promtool("check", "rules", write(tmp_path / "queries.yaml", recorded))


def test_alerts_fire_when_they_should_and_not_before(
    promtool: Callable[..., str], rules: list[dict[str, Any]], tmp_path: Path
) -> None:
    # promtool compares annotations as well; their words may change without an alert doing so.
    silent = copy.deepcopy(rules)
    for rule in silent:
        del rule["annotations"]
    write(tmp_path / "alerts.yaml", silent)
    shutil.copy(HERE / "alerts_test.yaml", tmp_path)
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "alerts_test.yaml"))


def test_drift_is_looked_at_as_often_as_its_threshold_was_made_for(rules: list[dict[str, Any]]) -> None:
    from training.plan.baseline import LOOKS_A_MONTH

    (rule,) = (rule for rule in rules if rule["alert"] == "BentuneDrift")
    assert 30 * 24 * 60 / int(rule["for"].removesuffix("m")) <= LOOKS_A_MONTH


def test_every_alert_is_tested_firing_and_silent(rules: list[dict[str, Any]]) -> None:
    tests = yaml.safe_load((HERE / "alerts_test.yaml").read_text())["tests"]
    fires: dict[str, set[bool]] = {}
    for one in tests:
        for expected in one["alert_rule_test"]:
            fires.setdefault(expected["alertname"], set()).add(bool(expected["exp_alerts"]))
    assert fires == {rule["alert"]: {True, False} for rule in rules}


def test_every_panel_of_the_dashboard_has_its_place() -> None:
    dashboard = json.loads((K8S / "components/monitoring/dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in dashboard["panels"]})
    for panel in dashboard["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all('namespace=~"$namespace"' in target["expr"] for target in panel["targets"])
