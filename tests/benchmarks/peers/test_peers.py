"""The peers: their command lines, requests and answers; starting and stopping, with a server made here."""

import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.peers import peers
from benchmarks.peers.peers import PEERS, TEXTBOOK, Peer, install, running, server_environment
from bentune.bundle.errors import BentuneError

BY_NAME = {peer.name: peer for peer in PEERS}

# Like BentoML's, its worker is in a session of its own; unlike BentoML's first process, it does not heed SIGTERM.
SERVER = """#!{python}
import http.server, json, os, pathlib, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen(["sleep", "60"], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(dict(asked=asked, pid=worker.pid, cwd=os.getcwd(), home=os.environ["BENTOML_HOME"],
                               model=os.environ["TEXTBOOK_MODEL"])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


@pytest.fixture
def made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peer:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setattr(peers, "STOP_TIMEOUT_S", 0.5)
    peer = replace(TEXTBOOK, program="server", requirements=tmp_path / "made-here.txt")
    script = peer.environment / "bin/server"
    script.parent.mkdir(parents=True)
    script.write_text(SERVER.format(python=sys.executable))
    script.chmod(0o755)
    return peer


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_listens_on_this_machine_only(peer: Peer) -> None:
    arguments = peer.arguments(4321)
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert arguments[arguments.index("--port") + 1] == "4321"


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_requirement_is_one_exact_version(peer: Peer) -> None:
    lines = [line for line in peer.requirements.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []


def test_textbook_is_asked_and_read() -> None:
    assert TEXTBOOK.body(("a", "b")) == {"inputs": ["a", "b"]}
    assert TEXTBOOK.labels([{"label": "5", "score": 0.9}, {"label": "1", "score": 0.4}]) == ["5", "1"]
    assert TEXTBOOK.variables(Path("/m"), 256) == {"TEXTBOOK_MODEL": "/m", "TEXTBOOK_MAX_TOKENS": "256"}


@pytest.mark.parametrize("engine", ["optimum", "torch"])
def test_infinity_is_asked_and_read(engine: str) -> None:
    peer = BY_NAME[f"infinity-{engine}"]
    arguments = peer.arguments(1)
    assert arguments[arguments.index("--engine") + 1] == engine
    body = peer.body(("a", "b"))
    assert body == {"model": arguments[arguments.index("--served-model-name") + 1], "input": ["a", "b"]}
    scores = [[{"score": 0.2, "label": "x"}, {"score": 0.8, "label": "y"}], [{"score": 0.7, "label": "x"}]]
    assert peer.labels({"object": "classify", "data": scores}) == ["y", "x"]


def test_what_is_set_for_bentune_does_not_reach_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PROMETHEUS_MULTIPROC_DIR", "BENTOML_CONFIG", "INFINITY_BATCH_SIZE", "BENTUNE_THREADS"):
        monkeypatch.setenv(name, "ours")
    monkeypatch.setenv("BENTOML_HOME", "ours")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    environment = server_environment(tmp_path)
    assert "ours" not in environment.values()
    assert environment["BENTOML_HOME"] == str(tmp_path)
    assert environment["OMP_NUM_THREADS"] == "2"


def test_running_serves_the_model_and_stops_every_process(made_here: Peer, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with running(made_here, tmp_path / "model", 256) as url:
        answer: dict[str, Any] = httpx.post(url, json=made_here.body(["hello"])).json()
        assert url.endswith("/predict")
        assert answer["asked"] == {"inputs": ["hello"]}
        assert answer["cwd"] == answer["model"] == str(tmp_path / "model")
        assert psutil.pid_exists(answer["pid"])
    # The orphan is reaped by the system's first process, when that gets to it.
    deadline = time.monotonic() + 5
    while psutil.pid_exists(answer["pid"]) and psutil.Process(answer["pid"]).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
    assert not Path(answer["home"]).exists()
    with pytest.raises(httpx.ConnectError):
        httpx.post(url, json={})


def test_a_server_that_exits_is_named_with_its_last_words(made_here: Peer, tmp_path: Path) -> None:
    (made_here.environment / "bin/server").write_text("#!/bin/sh\necho no such model\nexit 3\n")
    with (
        pytest.raises(BentuneError, match=r"textbook: exited with 3 .*\n.*no such model"),
        running(made_here, tmp_path, 256),
    ):
        pass


def test_installs_what_is_new_or_changed_and_tells_what_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path / "environments")
    requirements = tmp_path / "made-here.txt"
    requirements.write_text("# nothing\n")
    both = [replace(TEXTBOOK, name=name, requirements=requirements) for name in ("one", "two")]
    assert install(both) == both
    kept = both[0].environment / "kept"
    kept.touch()
    assert install(both) == both
    assert kept.exists()

    requirements.write_text("./is-not-there\n")
    assert install(both) == []
    assert not kept.exists()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("one could not be installed: ERROR: ")
    assert second.startswith("two could not be installed: ERROR: ")
