"""Facts of docs/serving: the service answers the requests of its page, commands run, tables are those of the code."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import bentoml
import httpx
import pytest
from doc_pages import DOCS, ROOT, blocks, commands_of, defaults_of, run, shell, values_of
from logged import log_of
from tiny import sentences

from rollout.server.server import free_port
from service.monitoring.prediction_log import LoggedPrediction
from service.settings import Settings
from training.plan.baseline import LOOKS_A_MONTH, RESAMPLES, WINDOW

PAGES = DOCS / "serving"


def test_service_page(tiny_tag: str, tmp_path: Path) -> None:
    name, port = tiny_tag.partition(":")[0], free_port()
    page = (PAGES / "service.md").read_text().replace("bbc-news", name).replace("3000", str(port))
    (tmp_path / "service.md").write_text(page)
    serve, serve_with_bentoml, build, *requests = commands_of(tmp_path / "service.md")
    assert f"{name}:" in shell(f"{build} --output tag --version from-the-docs", ROOT)
    assert serve_with_bentoml == f"bentoml serve {name}:latest"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        [*serve.split(), "--port", str(port)], cwd=tmp_path, env=os.environ | {"PATH": path}
    ) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/readyz")
            answers = [shell(line, tmp_path) for line in requests]
        finally:
            server.terminate()
            server.wait(60)
            bentoml.bentos.delete(f"{name}:from-the-docs")  # the newest of its name, which other tests go by
    assert len(answers) == 2
    assert all('"score"' in answer for answer in answers)


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"{url} did not answer 200")


def test_settings_table_is_the_code() -> None:
    settings = {name.upper(): default for name, default in defaults_of(Settings, "BENTUNE_").items()}
    assert values_of(PAGES / "service.md").items() >= settings.items()


def test_plan_page(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "runs/tiny" / tiny_run.name)
    commands = [line.replace("recipes/bbc-news.yaml", str(tiny_recipe)) for line in commands_of(PAGES / "plan.md")]
    output = "".join(run(command, tmp_path) for command in commands)
    assert "plan  nothing changed" in output
    assert "wins with" in output


def test_drift_page(tiny_tag: str, tmp_path: Path) -> None:
    page = PAGES / "drift.md"
    log_of(tmp_path / "predictions", sentences(60, seed=5))
    *replays, copy = commands_of(page)
    for command in replays:
        assert "60" in run(command.replace("bbc-news", tiny_tag), tmp_path)
    component = (ROOT / "k8s/components/prediction-log/kustomization.yaml").read_text()
    (parent,) = re.findall(r"tar c -C (\S+) predictions", copy)
    assert f"BENTUNE_PREDICTION_LOG={parent}/predictions\n" in component
    # Its example is a line that the replay reads, but for the hashes, which it shortens.
    (line,) = blocks(page, "json")
    LoggedPrediction.model_validate(json.loads(line) | {"key": "0" * 32})
    text = page.read_text()
    assert all(f"{number:,}" in text for number in (LOOKS_A_MONTH, RESAMPLES, WINDOW))
