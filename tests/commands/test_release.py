"""The commands release and rollback, as a shell sees them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from command import ask
from programs import require

from rollout.release.kubectl import Kubectl
from rollout.server.server import running

FIRST, SECOND = (f"registry.test/tiny:{number}@sha256:{str(number) * 64}" for number in (1, 2))


@pytest.fixture(scope="module")
def url(tiny_tag: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tiny_tag, cwd=tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.fixture(autouse=True)
def looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look would otherwise wait for pods that are here at once."""
    monkeypatch.setattr("rollout.release.watch_pods.LOOK_EVERY_S", 0.0)


def test_a_release_and_the_way_back(cluster: Cluster, overlay: Path, tiny_tag: str, url: str) -> None:
    there = ("--overlay", overlay, "--url", url)
    planned = ask("release", tiny_tag, "--image", FIRST, "--dry-run", *there)
    assert (planned.code, planned.out) == (0, "")
    assert f"+        image: {FIRST}" in planned.err
    assert "dry run: nothing was changed" in planned.err
    assert cluster.of("Deployment") == []

    first = ask("release", tiny_tag, "--image", FIRST, *there)
    assert first.code == 0
    assert "first version needs no verdict" in first.err
    assert "running, not ready" in first.err
    assert "golden rows" in first.err
    assert len(first.err.splitlines()) < 100
    second = ask("release", tiny_tag, "--image", SECOND, *there, "--json")
    assert (second.code, second.err) == (0, "")
    found = second.json
    assert (found["tag"], found["before"], found["image"]) == (tiny_tag, tiny_tag, SECOND)
    assert (found["where"], found["problem"], found["pods"]) == ("test/default/bentune", "", 1)
    assert cluster.image() == SECOND

    cluster.fate = lambda image: "restarts" if image == FIRST else "ready"
    third = ask("release", tiny_tag, "--image", FIRST, *there)
    assert third.code == 1
    assert "undone: the former version serves again" in third.err
    assert "OOMKilled" in third.err
    assert cluster.image() == SECOND

    cluster.fate = lambda image: "ready"
    back = ask("rollback", *there, "--json")
    assert (back.code, back.json["image"], back.json["before"]) == (0, FIRST, tiny_tag)
    assert cluster.image() == FIRST


@pytest.mark.parametrize("target", ["--overlay", "--deployment"])
def test_the_cluster_is_inspected_once(
    target: str, cluster: Cluster, overlay: Path, tiny_tag: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("release", tiny_tag, "--image", FIRST, "--overlay", overlay, "--url", url).code == 0
    calls: list[str] = []
    call = Kubectl._call

    def counted(self: Kubectl, *arguments: str, **options: Any) -> Any:
        calls.append(" ".join(arguments[:2]))
        return call(self, *arguments, **options)

    monkeypatch.setattr(Kubectl, "_call", counted)
    where = {"--overlay": overlay, "--deployment": "bentune"}[target]
    done = ask("release", tiny_tag, "--image", SECOND, target, where, "--url", url)
    assert (done.code, cluster.image()) == (0, SECOND)
    before = [one for one in calls[: calls.index("patch deployment")] if not one.startswith("kustomize")]
    version = ["version -o"] if target == "--overlay" else []
    state = ["get deployment", "get pods", "get replicasets"]
    assert sorted(before) == sorted([*version, "config view", *state])
    # Afterwards the pods are read at each look, and once more after they were checked.
    after = calls[calls.index("patch deployment") :]
    looks = after.count("get pods")
    assert looks >= 2
    assert {after.count(one) for one in state} == {looks}
    assert "config view" not in after


def test_gitops_gets_files_and_nothing_else(
    overlay: Path, tiny_tag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    require("kubectl")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = ask("release", tiny_tag, "--image", FIRST, "--overlay", overlay, "--commit")
    assert done.code == 0
    assert "written, not applied: commit it" in done.err
    assert FIRST in (overlay / "release.yaml").read_text()
    refused = ask("release", tiny_tag, "--image", FIRST, "--overlay", overlay, "--json")
    assert (refused.code, refused.json["exit_code"]) == (2, 2)
    assert "no cluster answers" in refused.json["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--overlay", "o"], "give either --image REF, which holds the bundle already, or --push REPOSITORY"),
        (["--overlay", "o", "--image", "a", "--push", "b/c"], "give either --image REF"),
        (["--image", "a"], "give a target: --overlay DIRECTORY, or --deployment NAME"),
        (["--image", "a", "--overlay", "o", "--dry-run", "--commit"], "leave one out"),
        (["--image", "a", "--deployment", "d", "--commit"], "--commit writes an overlay"),
        (["--image", "a", "--overlay", "nowhere"], "nowhere is no overlay"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_done(arguments: list[str], words: str, tiny_tag: str) -> None:
    answer = ask("release", tiny_tag, *arguments)
    assert answer.code == 2
    assert words in " ".join(answer.err.split())


def test_a_gates_no_is_an_exit_code(cluster: Cluster, overlay: Path, tiny_tag: str, url: str) -> None:
    there = ("--overlay", overlay, "--url", url)
    assert ask("release", tiny_tag, "--image", FIRST, *there).code == 0
    said = cluster.objects["Deployment", "bentune"]["spec"]["template"]["metadata"]["annotations"]
    said["bentune/content"] = "0" * 64
    no = ask("release", tiny_tag, "--image", SECOND, *there, "--json")
    assert (no.code, no.json["gate"]) == (1, "verdict")
    assert f"`bentune compare {tiny_tag} SERVED --data ROWS`" in no.json["error"]
    forced = ask("release", tiny_tag, "--image", SECOND, *there, "--force", "--reason", "a test", "--json")
    assert (forced.code, forced.json["forced"], forced.json["verdict"]) == (0, "a test", "none, forced")
    assert json.dumps(forced.json)
