"""A real Prometheus scrapes real servers, idle, overloaded, failing, gone: what alerts, what the dashboard shows."""

import asyncio
import itertools
import json
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import http_server
import httpx
import pytest
import yaml
from aiohttp import web
from served import SLOW_WORD, slow, started, storing
from tiny import sentences

from rollout.server.server import free_port

K8S = Path(__file__).parents[2] / "k8s"
PATIENCE_S = 120.0
# Prefixes of the metrics of other exporters, which do not run here.
OTHERS = ("kube_", "container_")
ARRIVALS_PER_S = 60
PATIENT_MS = 600_000


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
            time.sleep(0.1)

    def until_firing(self, *alerts: str) -> None:
        """Return once exactly these fire."""
        self.until(lambda: self.firing() == set(alerts), f"{alerts or 'none'} fired")

    def until_silent(self, for_s: float) -> None:
        """Return once none has fired for so long; on a busy machine one may fire before."""
        last = time.monotonic()

        def silent() -> bool:
            nonlocal last
            last = time.monotonic() if self.firing() else last
            return time.monotonic() - last > for_s

        self.until(silent, f"none fired for {for_s} s")

    def refused(self) -> float:
        # A scrape that came too late, on a busy machine, ends a series for the moment.
        found = self.ask('sum(last_over_time(bentune_rejected_total{reason="overloaded"}[1m]))')
        return float(found[0]["value"][1]) if found else 0.0


@dataclass
class Cluster:
    """Metrics of kube-state-metrics on the Deployment, as a page that Prometheus scrapes."""

    available: int = 2
    stuck: int = 0

    async def page(self, _: web.Request) -> web.Response:
        deployment = 'namespace="test", deployment="bentune"'
        return web.Response(
            text=f"kube_deployment_status_replicas_available{{{deployment}}} {self.available}\n"
            f'kube_deployment_status_condition{{{deployment}, condition="Progressing", status="false"}} {self.stuck}\n'
        )


@dataclass
class Crowd:
    """Asks `url` for one text after the other, over and over, as long as the context lasts; then everybody leaves.

    `rate` a second come, whatever the answers are; without a rate each comes when the one before has its answer.
    """

    url: str
    texts: Sequence[str]
    rate: int | None = None
    timeout_ms: int = PATIENT_MS
    statuses: Counter[int] = field(default_factory=Counter)

    def __enter__(self) -> "Crowd":
        self._loop = asyncio.new_event_loop()
        self._asking = self._loop.create_task(self._ask())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._asking.cancel)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.wait([self._asking]))

    async def _ask(self) -> None:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            asyncio.TaskGroup() as group,
        ):
            for text in itertools.cycle(self.texts):
                asked = group.create_task(self._one(session, text))
                await (asyncio.sleep(1 / self.rate) if self.rate else asked)

    async def _one(self, session: aiohttp.ClientSession, text: str) -> None:
        headers = {"X-Request-Timeout-Ms": str(self.timeout_ms)}
        async with session.post(
            f"{self.url}/predict", json={"inputs": text, "truncate": True}, headers=headers
        ) as answer:
            self.statuses[answer.status] += 1


def hurried(expression: str) -> str:
    """The same over seconds, for a test cannot wait for minutes."""
    return re.sub(r"\[(\d+m|\$__rate_interval)\]", "[4s]", expression)


@dataclass
class Scraped:
    """Targets that Prometheus scrapes: /metrics of servers, by the names of their pods."""

    file: Path
    pods: dict[str, str] = field(default_factory=dict)

    def __setitem__(self, pod: str, url: str) -> None:
        self.pods[pod] = url
        self._write()

    def __delitem__(self, pod: str) -> None:
        del self.pods[pod]
        self._write()

    def _write(self) -> None:
        targets = [
            {"targets": [urlsplit(url).netloc], "labels": {"namespace": "test", "pod": pod}}
            for pod, url in self.pods.items()
        ]
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(targets))
        part.replace(self.file)


@pytest.fixture
def rules(render: Callable[..., Any]) -> list[dict[str, Any]]:
    """The alerts of the production overlay, in a hurry."""
    groups = render("overlays/production").one("PrometheusRule")["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return [rule | {"expr": hurried(rule["expr"]), "for": "1s"} for rule in rules]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def scraped(tmp_path: Path) -> Scraped:
    return Scraped(tmp_path / "pods.json")


@pytest.fixture
def prometheus(
    rules: list[dict[str, Any]], cluster: Cluster, scraped: Scraped, missing: Callable[[str], Any], tmp_path: Path
) -> Iterator[Prometheus]:
    """Run a Prometheus with the alerts.

    It scrapes the pods and the cluster every half second.
    """
    program = shutil.which("prometheus") or missing("prometheus")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "bentune", "rules": rules}]}))
    port = free_port()
    with http_server.serving(cluster.page) as exporter, ExitStack() as stack:
        pods = [{"files": [str(scraped.file)], "refresh_interval": "1s"}]
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(tmp_path / "rules.yaml")],
            "scrape_configs": [
                {"job_name": "bentune", "file_sd_configs": pods},
                {"job_name": "cluster", "static_configs": [{"targets": [urlsplit(exporter).netloc]}]},
            ],
        }
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            program,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10))
        deadline = time.monotonic() + PATIENCE_S
        while not _ready(client):
            if time.monotonic() > deadline or process.poll() is not None:
                pytest.fail((tmp_path / "log").read_text()[-3000:])
            time.sleep(0.1)
        yield Prometheus(client)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def panels() -> list[str]:
    dashboard = json.loads((K8S / "components/monitoring/dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    own = [query for query in queries if not any(other in query for other in OTHERS)]
    return [hurried(query).replace("$namespace", "test") for query in own]


def slow_alone(root: Path) -> None:
    """Make a bundle slow on a word, with each text computed alone.

    A slow word takes 50 ms. A queue is therefore as long as its texts are many.
    """
    slow(root)
    (root / "plan.json").write_text(json.dumps({"slots": 1, "threads": 1, "token_budget": 1}))
    indifferent(root)


def for_other_hardware(root: Path) -> None:
    """Its plan was measured with more cores than a machine has."""
    speed = {"inputs_per_second": 1, "lone_ms": 1, "padding": 0, "token_budget": 512}
    entry = {"variant": "fp32", "provider": "CPUExecutionProvider", "slots": 4096, "threads": 1} | speed
    (root / "plan.json").write_text(json.dumps({"measured": [entry]}))
    indifferent(root)


def indifferent(root: Path) -> None:
    """Widen a bundle's drift window so far that its inputs are never called drifted.

    Some of these tests send one text over and over.
    """
    baseline = json.loads((root / "baseline.json").read_text())
    (root / "baseline.json").write_text(json.dumps(baseline | {"window": 100_000}))


def test_each_alert_fires_when_it_should_and_not_before(
    prometheus: Prometheus,
    cluster: Cluster,
    scraped: Scraped,
    rules: list[dict[str, Any]],
    tiny_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The alerts in `firing` are exactly those that are wrong at the time.

    Each alert is thereby seen silent through all the other alerts.
    """
    seen: set[str] = set()

    def fires(*alerts: str) -> None:
        prometheus.until_firing(*alerts)
        seen.update(alerts)

    with ExitStack() as stack:
        store = stack.enter_context(storing(tiny_bundle))

        def server(name: str, change: Callable[[Path], object], **more: str) -> Any:
            env = {"BENTUNE_QUEUE_INPUTS": "100000", "BENTUNE_REQUEST_TIMEOUT_MS": str(PATIENT_MS)} | more
            return started(tmp_path_factory.mktemp(name), ".", "--arg", f"model={store(name, change)}", env=env)

        fallen = stack.enter_context(server("fallen", for_other_hardware))
        # Its log would have to be in a file.
        log = {"BENTUNE_PREDICTION_LOG": f"{__file__}/log"}
        talkative = stack.enter_context(server("talkative", lambda _: None, **log))
        with server("slow", slow_alone) as slowed:
            slowed.until_status("/readyz", 200)
            fallen.until_status("/readyz", 200)
            talkative.until_status("/readyz", 200)
            scraped["bentune-0"] = slowed.url

            # All is well.
            with Crowd(slowed.url, ["a cat near the dog"]) as crowd:
                prometheus.until(lambda: bool(prometheus.ask("bentune_model_info")), "the server was scraped")
                prometheus.until_silent(for_s=3)  # longer than an alert has to hold
            assert crowd.statuses.keys() == {200}

            # One pod runs on other hardware than was measured, and is gone again.
            scraped["bentune-1"] = fallen.url
            fires("BentunePlanFallback")
            del scraped["bentune-1"]
            fires()

            # The log cannot be written. The texts are at first like the held-out ones, and then unlike them.
            scraped["bentune-2"] = talkative.url
            with Crowd(talkative.url, [text for text, _ in sentences(1200, seed=7)]) as usual:
                # With the drift of the newest texts, which takes a window of them.
                prometheus.until(
                    lambda: all(prometheus.ask(query) for query in panels()), "every panel shows something"
                )
                fires("BentunePredictionLogLost")
            with Crowd(talkative.url, ["bread and cheese"]):
                fires("BentunePredictionLogLost", "BentuneDrift")
            assert usual.statuses.keys() == {200}
            del scraped["bentune-2"]
            fires()

            # A new version does not become ready; no pod is.
            cluster.stuck = 1
            fires("BentuneRolloutStuck")
            cluster.stuck, cluster.available = 0, 0
            fires("BentuneDown")
            cluster.available = 2
            fires()

            # More comes than goes out: 20 a second would, on a core of its own.
            with Crowd(slowed.url, [SLOW_WORD], rate=ARRIVALS_PER_S) as crowd:
                fires("BentuneLatencyHigh", "BentuneQueueGrowing")
                assert crowd.statuses.keys() <= {200}
                # Those who have no time to wait for all these are refused at once.
                with Crowd(slowed.url, ["a cat"], timeout_ms=100, rate=20) as hasty:
                    fires("BentuneLatencyHigh", "BentuneQueueGrowing", "BentuneOverloaded")
                assert hasty.statuses.keys() == {429}
            # Scrapes are late where the machine is busy, and one that leaves does not see its own refusal.
            refusals = crowd.statuses[429] + hasty.statuses[429]
            prometheus.until(lambda: prometheus.refused() >= refusals, "all refusals were seen")
            fires()

            # Computing takes longer than they wait for an answer.
            with Crowd(slowed.url, [f"{SLOW_WORD} " * 8], timeout_ms=100) as failed:
                prometheus.until(lambda: "BentuneErrors" in prometheus.firing(), "errors were noticed")
                seen.add("BentuneErrors")
                assert prometheus.firing() <= {"BentuneErrors", "BentuneLatencyHigh"}
            assert failed.statuses.keys() == {504}
            fires()
        # The last pod goes.
        fires("BentuneDown")
    assert seen == {rule["alert"] for rule in rules}
