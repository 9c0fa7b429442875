"""The canary's AnalysisTemplate as Argo Rollouts would ask it, and the real Prometheus that it asks."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml
from programs import require

from rollout.server.server import free_port

PATIENCE_S = 60.0


@dataclass
class Analysis:
    """The AnalysisTemplate as Argo Rollouts would run it, asked once."""

    metrics: dict[str, dict[str, Any]]
    client: httpx.Client

    def value(self, name: str, canary: str, stable: str = "stable") -> list[float]:
        query = self.metrics[name]["provider"]["prometheus"]["query"]
        for argument, value in (("canary", canary), ("stable", stable)):
            query = query.replace(f"{{{{args.{argument}}}}}", value)
        answer = self.client.get("/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", answer
        return [float(one["value"][1]) for one in answer["data"]["result"]]

    def judge(self, name: str, canary: str) -> str:
        return verdict(self.metrics[name], self.value(name, canary))

    def judged(self, canary: str) -> dict[str, str]:
        return {name: self.judge(name, canary) for name in self.metrics}


def verdict(metric: dict[str, Any], result: list[float]) -> str:
    """As Argo Rollouts decides: neither condition is inconclusive."""

    def holds(condition: str) -> bool:
        return bool(eval(condition.replace("&&", "and"), {"len": len, "result": result}))

    if holds(metric["failureCondition"]):
        return "failed"
    return "successful" if holds(metric["successCondition"]) else "inconclusive"


@contextmanager
def prometheus(directory: Path, servers: dict[str, str]) -> Iterator[httpx.Client]:
    """Scrapes each server twice a second, as pods of the version that it is named for."""
    port = free_port()
    targets = [
        {"targets": [urlsplit(url).netloc], "labels": {"rollouts_pod_template_hash": name, "pod": name}}
        for name, url in servers.items()
    ]
    config = {
        "global": {"scrape_interval": "500ms"},
        "scrape_configs": [{"job_name": "bentune", "static_configs": targets}],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        require("prometheus"),
        f"--config.file={directory / 'prometheus.yaml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        finally:
            process.terminate()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


def home(directory: Path) -> Path:
    """A BentoML home with the same stores: servers of one home share their metrics."""
    directory.mkdir()
    for store in ("bentos", "models"):
        (directory / store).symlink_to(Path(os.environ["BENTOML_HOME"]) / store)
    return directory


def scraped(client: httpx.Client, servers: int) -> bool:
    try:
        found = client.get("/api/v1/query", params={"query": "count(bentune_model_info)"}).json()["data"]["result"]
    except (httpx.TransportError, ValueError):  # not up yet
        return False
    return bool(found) and int(found[0]["value"][1]) == servers
