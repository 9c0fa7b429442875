"""kubectl's errors, contexts and ports; a script stands in for it where a cluster would have to answer."""

import json
import os
from pathlib import Path

import httpx
import pytest
import yaml
from aiohttp import web
from http_server import serving
from programs import require

from bentune.bundle.errors import BentuneError, InputError
from rollout.release.kubectl import Kubectl


def script(directory: Path, text: str) -> str:
    """A kubectl that does this."""
    path = directory / "fake-kubectl"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_it_says_what_it_speaks_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("kubectl")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert Kubectl().where() == ("none", "default")
    contexts = [
        {"name": name, "context": {"cluster": "c", "user": "u"} | more}
        for name, more in (("here", {"namespace": "news"}), ("there", {}))
    ]
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "here", "contexts": contexts}
    config |= {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}], "users": [{"name": "u"}]}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    assert Kubectl().where() == ("here", "news")
    assert Kubectl(context="there").where() == ("there", "default")
    assert Kubectl(namespace="other").where() == ("here", "other")
    assert not Kubectl().answers()
    with pytest.raises(BentuneError, match="`kubectl get deployment bentune` failed: .*127.0.0.1:9"):
        Kubectl().get("deployment", "bentune")


def test_in_a_pod_it_is_the_pods_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "namespace").write_text("news")
    monkeypatch.setattr("rollout.release.kubectl.IN_CLUSTER", tmp_path / "namespace")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert Kubectl().where() == ("in-cluster", "news")


def test_without_it_the_message_says_so() -> None:
    with pytest.raises(InputError, match="no-such-kubectl is not installed; see https://"):
        Kubectl(program="no-such-kubectl").answers()


def test_whether_a_cluster_answers_is_asked_without_an_option_that_breaks_in_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is bounded without --request-timeout.

    With that option kubectl ignores the service account of its pod.
    """
    program = script(tmp_path, f'printf "%s\\n" "$@" > {tmp_path / "said"}')
    assert Kubectl(program=program).answers()
    assert (tmp_path / "said").read_text().split() == ["version", "-o", "json"]
    monkeypatch.setattr("rollout.release.kubectl.ANSWER_S", 0.2)
    assert not Kubectl(program=script(tmp_path, "exec sleep 20")).answers()


def test_options_come_before_the_command(tmp_path: Path) -> None:
    program = script(tmp_path, 'printf "%s\\n" "$@" > ' + str(tmp_path / "said"))
    Kubectl("there", "news", program).patch("deployment", "bentune", {"spec": {"paused": False}})
    said = (tmp_path / "said").read_text().splitlines()
    assert said[:4] == ["--context", "there", "--namespace", "news"]
    assert json.loads(said[-1]) == {"spec": {"paused": False}}


def test_a_service_is_reached_through_a_port_of_its_own(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    with serving(answer) as url:
        port = url.rpartition(":")[2]
        pid = tmp_path / "pid"
        talk = f'echo $$ > {pid}; echo "some warning"; echo "Forwarding from 127.0.0.1:{port} -> 3000"; exec sleep 600'
        with Kubectl(program=script(tmp_path, talk)).forward("service/bentune", 80) as address:
            assert httpx.get(address).text == "hello"
        # Nothing is left running.
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
    refused = Kubectl(program=script(tmp_path, 'echo "error: no pods are ready" >&2; exit 1'))
    with pytest.raises(BentuneError, match="opened no port: no pods are ready"), refused.forward("service/bentune", 80):
        pass
