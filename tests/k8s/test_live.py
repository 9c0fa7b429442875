"""The manifests hold for a real server: it answers the probes' paths, and has every metric that is asked for."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rollout.image.bento_image import forget_model
from rollout.server.server import running, serve_command

K8S = Path(__file__).parents[2] / "k8s"
# Metrics of other exporters: Prometheus itself, kube-state-metrics, and the kubelet.
OTHERS = {
    "kube_deployment_status_replicas_available",
    "kube_deployment_status_condition",
    "container_cpu_usage_seconds_total",
}
WORDS = {"and", "or", "unless", "bool", "offset"}


@pytest.fixture(scope="module")
def server(
    tiny_tag: str, render: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Serve the tiny Bento with the settings of the production overlay.

    It has answered as many inputs as drift needs to report anything.
    """
    configs = render("overlays/production", "prediction-log").of("ConfigMap")
    (settings,) = (one["data"] for one in configs if one["metadata"]["name"].startswith("bentune-settings"))
    directory = tmp_path_factory.mktemp("live")
    settings["BENTUNE_PREDICTION_LOG"] = str(directory / "predictions")
    with (
        running(tiny_tag, env=settings, log=directory / "log", cwd=directory) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        for _ in range(5):
            assert client.post("/predict", json={"inputs": ["good"] * 100}).status_code == 200
        yield client


def page(server: httpx.Client) -> str:
    answer = server.get("/metrics")
    assert answer.status_code == 200
    return answer.text


@pytest.fixture(scope="module")
def metrics(server: httpx.Client) -> dict[str, set[str]]:
    """The labels of each sample's name, as a scrape reads them."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page(server)):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def names(query: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    query = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without|on|ignoring)\s*\([^)]*\)", " ", query)
    return {word for word in re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", query) if word not in WORDS}


def expressions(rendered: Any) -> list[str]:
    """Every expression of what was rendered, and of the adapter's rules."""
    found = [
        rule["expr"]
        for one in rendered.of("PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
    ]
    for one in rendered.of("AnalysisTemplate"):
        asked = [metric["provider"]["prometheus"]["query"] for metric in one["spec"]["metrics"]]
        found += [re.sub(r"{{args\.(\w+)}}", r"\1", query) for query in asked]
    for one in rendered.of("ScaledObject"):
        found += [
            trigger["metadata"]["query"] for trigger in one["spec"]["triggers"] if trigger["type"] == "prometheus"
        ]
    for one in rendered.of("ConfigMap"):
        if "bentune.json" in one["data"]:
            panels = json.loads(one["data"]["bentune.json"])["panels"]
            found += [target["expr"] for panel in panels for target in panel["targets"]]
    if rendered.of("HorizontalPodAutoscaler"):
        rules = yaml.safe_load((K8S / "components/autoscale-hpa/prometheus-adapter.yaml").read_text())["rules"]
        found += [name for rule in rules for name in re.findall(r'__name__=~"([^"]*)"', rule["seriesQuery"])]
    return found


@pytest.fixture(scope="module")
def queries(render: Callable[..., Any]) -> list[str]:
    return [
        *expressions(render("overlays/production")),
        *expressions(render("overlays/dev", "autoscale-keda", "canary-argo")),
    ]


def test_names_are_found_in_an_expression() -> None:
    query = (
        'histogram_quantile(0.9, sum by (le) (rate(a_bucket{x=~"b.*"}[5m]))) / on(pod) c > 0.5 or absent(d{e="f"}) == 1'
    )
    assert names(query) == {"a_bucket", "c", "d"}


def test_the_server_answers_the_probes(server: httpx.Client, render: Callable[..., Any]) -> None:
    (container,) = render("overlays/production").containers
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]
        answer = server.get(asked["httpGet"]["path"], timeout=asked["timeoutSeconds"])
        assert answer.status_code == 200
    assert server.get("/ready").status_code == 404


def test_the_server_is_started_as_everywhere(render: Callable[..., Any]) -> None:
    (container,) = render("overlays/production").containers
    command = serve_command("tag", "127.0.0.1", container["ports"][0]["containerPort"])
    assert command[-2:] == container["args"]


def test_the_gateway_opens_paths_that_the_server_has(server: httpx.Client, render: Callable[..., Any]) -> None:
    (rule,) = render("overlays/dev", "gateway").one("HTTPRoute")["spec"]["rules"]
    for match in rule["matches"]:
        assert server.get(match["path"]["value"]).status_code in {200, 405}


def test_the_scraped_path_is_the_metrics(render: Callable[..., Any], metrics: dict[str, set[str]]) -> None:
    (endpoint,) = render("overlays/production").one("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert "bentune_queue_tokens" in metrics


def test_every_metric_that_is_asked_for_exists(queries: list[str], metrics: dict[str, set[str]]) -> None:
    asked = set().union(*(names(query) for query in queries))
    assert len(asked) > 15
    assert {"bentune_queue_requests", "bentune_slots_busy", "bentoml_service_request_total"} <= asked
    assert asked - OTHERS <= set(metrics)
    # Nothing is excused that nobody asks for.
    assert asked >= OTHERS


def test_every_label_that_is_asked_for_exists(queries: list[str], metrics: dict[str, set[str]]) -> None:
    """Every label in a selector or a grouping exists on its metric.

    A selector on a label that is not there silently selects nothing. A grouping by one silently adds up all.
    """
    added = {"namespace", "pod", "rollouts_pod_template_hash"}  # by every scrape of a pod
    asked: list[tuple[set[str], set[str]]] = []
    for query in queries:
        for name, selector in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", query):
            labels = set(re.findall(r"(\w+)\s*[=!]~?", re.sub(r'"[^"]*"', '""', selector)))
            if name in metrics:
                asked.append((labels, metrics[name]))
        if names(query) <= set(metrics):
            known = set().union(*(metrics[name] for name in names(query)))
            asked += [(set(re.findall(r"\w+", group)), known) for group in re.findall(r"\bby\s*\(([^)]*)\)", query)]
    assert all(labels <= known | added for labels, known in asked)
    assert {"endpoint", "http_response_code", "reason", "le", "label"} <= set().union(*(labels for labels, _ in asked))


def test_the_values_of_labels_are_the_servers(queries: list[str], server: httpx.Client) -> None:
    shown = page(server)
    values = {(label, value) for query in queries for label, value in re.findall(r'(endpoint|reason)="([^"]*)"', query)}
    assert values == {("endpoint", "/predict"), ("reason", "overloaded")}
    assert all(f'{label}="{value}"' in shown for label, value in values)


def test_a_bento_without_its_model_serves_the_one_of_the_model_image(
    tiny_tag: str, render: Callable[..., Any], tmp_path: Path
) -> None:
    """The init container's own command copies the store.

    The Bento is named by its path, as in its image.
    """
    import bentoml

    copy, served = render("overlays/dev", "model-image").containers
    (store,) = (one["mountPath"] for one in served["volumeMounts"] if one["name"] == "models")
    assert store == "/home/bentoml/models"
    (tmp_path / "models").mkdir()
    name, _, version = tiny_tag.partition(":")
    image = tmp_path / "image" / name
    shutil.copytree(bentoml.models.get(tiny_tag).path, image / version)
    (image / "latest").write_text(version)
    places = {"/models/.": f"{image.parent}/.", "/copied/": f"{tmp_path}/models/"}
    subprocess.run([places.get(word, word) for word in copy["command"]], check=True)
    bento = tmp_path / "bento"
    shutil.copytree(bentoml.bentos.get(tiny_tag).path, bento)
    assert not (bento / "models").exists()
    # The server is of an earlier version than the model, as after a retraining.
    description = bento / "bento.yaml"
    description.write_text(description.read_text().replace(tiny_tag, f"{tiny_tag}-before"))
    forget_model(description)
    with running(str(bento), env={"BENTOML_HOME": str(tmp_path)}, log=tmp_path / "log", cwd=tmp_path) as url:
        assert httpx.get(f"{url}/info", timeout=30).json()["version"] == version
        # Its metrics are written beside it.
        assert (tmp_path / "prometheus_multiproc_dir").is_dir()
