"""Where a release is written: the files of an overlay, which is then applied, or the one Deployment of a cluster."""

import difflib
from pathlib import Path
from typing import Any, Protocol

import yaml

from bentune.bundle.errors import InputError
from rollout.release.kubectl import Kubectl
from rollout.release.version_pin import Pin, Saved, image_in, pin_of, pinned_container, read_pin, write_pin
from rollout.release.watch import Snapshot

Object = dict[str, Any]


class Place(Protocol):
    """One Deployment, and how it is changed.

    `container` is the one whose image holds the model, `image` that image. `written_at` says which files are written,
    and `rollout` is the name of the Rollout of Argo that makes the pods, step by step; each empty where there is none.
    """

    kubectl: Kubectl
    deployment: str
    container: str
    image: str
    written_at: str
    rollout: str

    def pinned(self) -> Pin | None:
        """What the place says now, or None when no release wrote it."""

    def write(self, pin: Pin) -> str:
        """Write the version, not yet for the cluster; returns a unified diff of what is applied."""

    def differs(self) -> str | None:
        """How the cluster itself says that it would change, or None."""

    def apply(self) -> None:
        """Give it to the cluster."""

    def restore(self) -> None:
        """Take back what `write` did."""


class OverlayPlace:
    """A kustomize overlay."""

    def __init__(self, overlay: Path, kubectl: Kubectl, deployment: str | None = None) -> None:
        self.overlay = overlay
        self._saved = Saved(overlay)
        self._text, self._objects = kubectl.render(overlay)
        one = _serving(self._objects, overlay, deployment)
        self.deployment: str = one["metadata"]["name"]
        self.container = pinned_container(one["spec"]["template"])
        self.image, self.written_at = image_in(one["spec"]["template"]), str(overlay.resolve())
        rollouts = [one for one in self._objects if one["kind"] == "Rollout"]
        ours = [one for one in rollouts if one["spec"].get("workloadRef", {}).get("name") == self.deployment]
        self.rollout: str = ours[0]["metadata"]["name"] if ours else ""
        self.kubectl = _in_namespace(kubectl, one["metadata"].get("namespace"), overlay)

    def pinned(self) -> Pin | None:
        """What the overlay renders to."""
        return read_pin(self._objects, self.deployment)

    def write(self, pin: Pin) -> str:
        """Write the file and list it; the diff is of all that the overlay renders to. Raises InputError."""
        write_pin(self.overlay, self.deployment, pin)
        try:
            text, objects = self.kubectl.render(self.overlay)
            if read_pin(objects, self.deployment) != pin:
                raise InputError(f"{self.overlay}: something in it overwrites the version that release.yaml pins")
        except InputError:
            self.restore()
            raise
        return _diff(self._text, text)

    def differs(self) -> str | None:
        """`kubectl diff -k`."""
        return self.kubectl.diff(self.overlay)

    def apply(self) -> None:
        """`kubectl apply -k`."""
        self.kubectl.apply(self.overlay)

    def restore(self) -> None:
        """The files as they were."""
        self._saved.restore()


class LivePlace:
    """A Deployment that is patched where it runs: without an overlay, by whoever may change nothing else."""

    def __init__(self, deployment: str, kubectl: Kubectl) -> None:
        found = kubectl.get("deployment", deployment)
        if found is None:
            raise InputError(f"there is no Deployment {deployment!r} in {'/'.join(kubectl.where())}; apply one first")
        self.kubectl, self.deployment = kubectl, deployment
        self._template: Object = found["spec"]["template"]
        self.container, self.image = pinned_container(self._template), image_in(self._template)
        # A Rollout is never asked for here, nor a file written.
        self.written_at, self.rollout = "", ""
        self._patch: Object = {}

    def pinned(self) -> Pin | None:
        """What the pods are annotated with."""
        return pin_of(self._template)

    def write(self, pin: Pin) -> str:
        """Nothing is written before it is applied."""
        self._patch = pin.patch(self.deployment)
        before = self.pinned()
        was = {**(before.annotations() if before else {}), "image": self.image}
        will = {**pin.annotations(), "image": pin.image}
        return _diff(*(yaml.safe_dump({key: one[key] for key in one if one[key]}) for one in (was, will)))

    def differs(self) -> str | None:
        """The diff of `write` says it all."""
        return None

    def apply(self) -> None:
        """`kubectl patch`."""
        self.kubectl.patch("deployment", self.deployment, self._patch)

    def restore(self) -> None:
        """There is nothing to take back."""


def snapshot(kubectl: Kubectl, name: str) -> Snapshot | None:
    """What the cluster says of a Deployment now; None when there is none of that name."""
    deployment = kubectl.get("deployment", name)
    if deployment is None:
        return None
    labels = deployment["spec"]["selector"]["matchLabels"]
    return Snapshot(deployment, kubectl.having("replicasets", labels), kubectl.having("pods", labels))


def _serving(objects: list[Object], overlay: Path, name: str | None) -> Object:
    found = [
        one
        for one in objects
        if one["kind"] == "Deployment"
        and one["spec"]["template"]["metadata"].get("labels", {}).get("track") != "canary"
        and name in {None, one["metadata"]["name"]}
    ]
    if len(found) != 1:
        names = ", ".join(one["metadata"]["name"] for one in found) or "none"
        raise InputError(f"{overlay} should render one serving Deployment{f' {name}' if name else ''}; found {names}")
    return found[0]


def _in_namespace(kubectl: Kubectl, namespace: str | None, overlay: Path) -> Kubectl:
    if namespace is None:
        return kubectl
    if kubectl.namespace not in {None, namespace}:
        raise InputError(f"--namespace {kubectl.namespace}: {overlay} says {namespace}; leave the option out")
    return Kubectl(kubectl.context, namespace, kubectl.program)


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="")
    return "\n".join(lines)
