"""A real Prometheus scrapes a real server, idle, overloaded and gone: what alerts, and what the dashboard shows."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from rollout.load import Body, Target, closed_loop
from rollout.load import run as run_loop
from rollout.server import free_port, running

K8S = Path(__file__).parent.parent.parent / "k8s"
PATIENCE_S = 60.0
# Of other exporters, which nobody runs here.
OTHERS = ("kube_", "container_")


@dataclass
class Prometheus:
    """Asked over HTTP."""

    client: httpx.Client

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = self.client.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", (query, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        alerts = self.client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain until {what}; firing: {self.firing()}"
            time.sleep(0.2)


def hurried(expression: str) -> str:
    """The same over seconds, for a test cannot wait for minutes."""
    return re.sub(r"\[(5m|\$__rate_interval)\]", "[8s]", expression)


@pytest.fixture
def start(render: Callable[..., Any], missing: Callable[[str], Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a Prometheus with the alerts of the production overlay, which looks at a server every half second."""
    program = shutil.which("prometheus") or missing("prometheus")
    groups = render("overlays/production").one("PrometheusRule")["spec"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        rule |= {"expr": hurried(rule["expr"]), "for": "1s"}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    started: list[subprocess.Popen[bytes]] = []

    def call(url: str) -> Prometheus:
        port = free_port()
        target = {"targets": [urlsplit(url).netloc], "labels": {"namespace": "test", "pod": "bentune-0"}}
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(tmp_path / "rules.yaml")],
            "scrape_configs": [{"job_name": "bentune", "static_configs": [target]}],
        }
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            program,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (tmp_path / "log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        found = Prometheus(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10))
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and started[0].poll() is None:
            try:
                if found.client.get("/-/ready").status_code == 200:
                    return found
            except httpx.TransportError:
                time.sleep(0.1)
        pytest.fail((tmp_path / "log").read_text()[-3000:])

    yield call
    for process in started:
        process.terminate()
        process.wait(30)


def panels() -> list[str]:
    dashboard = json.loads((K8S / "components/monitoring/dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    own = [query for query in queries if not any(other in query for other in OTHERS)]
    return [hurried(query).replace("$namespace", "test") for query in own]


def refused(prometheus: Prometheus) -> float:
    [found] = prometheus.ask('sum(bentune_rejected_total{reason="overloaded"})')
    return float(found["value"][1])


def test_it_is_quiet_while_all_is_well_and_speaks_of_overload_and_of_an_end(
    start: Callable[..., Prometheus], tiny_tag: str, tmp_path: Path
) -> None:
    one = [Body(json.dumps({"inputs": "a cat near the dog"}).encode())]
    many = [Body(json.dumps({"inputs": ["bread and cheese"] * 8}).encode(), texts=8)]
    with running(tiny_tag, env={"BENTUNE_QUEUE_INPUTS": "8"}, cwd=tmp_path) as url:
        prometheus = start(url)
        run_loop(closed_loop(Target(url), one, clients=1, seconds=6))
        prometheus.until(lambda: bool(prometheus.ask("bentune_model_info")), "the server was scraped")
        assert prometheus.firing() == set()
        assert [query for query in panels() if not prometheus.ask(query)] == [], "every panel shows something"

        load = run_loop(closed_loop(Target(url), many, clients=24, seconds=8))
        assert load.statuses.keys() >= {200, 429}
        prometheus.until(lambda: "BentuneOverloaded" in prometheus.firing(), "the overload was noticed")
        assert "BentuneDown" not in prometheus.firing()
        # Scrapes are late where the machine is busy.
        prometheus.until(lambda: refused(prometheus) == load.statuses[429], "all refusals were seen")
        prometheus.until(lambda: "BentuneOverloaded" not in prometheus.firing(), "it was over")
    prometheus.until(lambda: "BentuneDown" in prometheus.firing(), "its end was noticed")
