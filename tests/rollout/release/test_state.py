"""Decision on the served version: deployed by hand, not finished by Argo, or no basis for a verdict."""

import dataclasses
from typing import Any

import pytest
import yaml
from releasing import GOOD, deployed, image_of

from bentune.bundle.errors import GateError, InputError
from rollout.release.kubectl import Kubectl
from rollout.release.record import Action, read
from rollout.release.release import release
from rollout.release.state import inspect
from rollout.release.target import LiveTarget


def test_what_was_deployed_by_hand_is_asked_what_it_is(releasing: Any) -> None:
    deployed(releasing.cluster, releasing.overlay, pin=False)
    running = releasing.version("1")
    candidate, unjudged = releasing.version("2", running), releasing.version("3")
    with pytest.raises(GateError, match="no /info identified it"):
        releasing.release(candidate)
    releasing.behind.versions[releasing.cluster.image()] = running
    with pytest.raises(GateError, match="was not compared with what is served"):
        releasing.release(unjudged)
    outcome = releasing.release(candidate)
    assert (outcome.problem, outcome.before.content) == ("", running.content)


def test_an_image_that_was_set_by_hand_is_not_what_the_annotations_say(releasing: Any) -> None:
    first = releasing.version("1")
    assert releasing.release(first).problem == ""
    template = releasing.cluster.objects["Deployment", "bentune"]["spec"]["template"]
    template["spec"]["containers"][0]["image"] = GOOD
    for _ in range(4):
        releasing.cluster.step()
    with pytest.raises(GateError, match="no /info identified it"):
        releasing.release(releasing.version("2", first))


def test_a_deployment_without_pods_proves_nothing(releasing: Any) -> None:
    """As Argo Rollouts leaves it."""
    first = releasing.version("1")
    assert releasing.release(first).problem == ""
    releasing.cluster.objects["Deployment", "bentune"]["spec"]["replicas"] = 0
    second = releasing.version("2", first)
    with pytest.raises(InputError, match="has 0 replicas: no pod would prove the version"):
        release(LiveTarget("bentune", Kubectl()), second, image_of(second), releasing.options)
    assert releasing.cluster.image() == image_of(first)


def test_overlays_have_records_of_their_own(releasing: Any) -> None:
    first = releasing.version("1")
    assert releasing.release(first, mode="commit").where == f"commit:{releasing.overlay}/default/bentune"
    production = dataclasses.replace(releasing, overlay=releasing.overlay.parent / "production")
    other = releasing.version("2")
    assert production.release(other, mode="commit").pin.verdict == "none, the first version"
    from rollout.release.release import rollback

    for one in (releasing, production):
        with pytest.raises(InputError, match="no earlier release"):
            rollback(one.target(), one.options, mode="commit")


def test_an_overlay_with_somebodys_image_is_no_first_version(releasing: Any) -> None:
    kustomization = releasing.overlay / "kustomization.yaml"
    text = kustomization.read_text()
    kustomization.write_text(text.replace("newTag: dev", "newName: registry.test:5000/mine\n    newTag: '7'"))
    with pytest.raises(GateError, match="no /info identified it"):
        releasing.release(releasing.version("1"), mode="commit")


def test_with_argo_the_stable_version_is_what_is_served(releasing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = releasing.version("1")
    second = releasing.version("2", first)
    for one in (first, second):
        assert releasing.release(one).problem == ""
    kustomization = releasing.overlay / "kustomization.yaml"
    kustomization.write_text(
        kustomization.read_text() + yaml.safe_dump({"components": ["../../components/canary-argo"]})
    )
    # The second was applied, and Argo went back to the first.
    for number, one in enumerate(releasing.cluster.of("ReplicaSet")):
        one["metadata"]["labels"]["rollouts-pod-template-hash"] = f"hash{number}"
    status = {"stableRS": "hash0", "abort": True}
    get = Kubectl.get

    def rollouts(self: Kubectl, kind: str, name: str) -> Any:
        return {"status": status} if kind.startswith("rollouts") else get(self, kind, name)

    monkeypatch.setattr(Kubectl, "get", rollouts)
    monkeypatch.setattr(Kubectl, "apply", lambda *_: [])
    state = inspect(releasing.target(), "apply")
    assert state.before is not None
    assert (state.before.content, state.annotations.left) == (first.content, (second.content,))
    with pytest.raises(GateError, match="was undone here"):
        releasing.release(second)
    third = releasing.version("3", first)
    assert releasing.release(third).before.content == first.content
    assert read(releasing.options.record)[-1].action is Action.HANDED_OVER
