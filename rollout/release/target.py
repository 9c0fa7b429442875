"""Target of a release: an overlay that is written and applied, or a running Deployment."""

import difflib
from pathlib import Path
from typing import Protocol

import yaml

from bentune.bundle.errors import InputError
from rollout.release.kubectl import Kubectl, Object
from rollout.release.progress import Snapshot
from rollout.release.version_pin import Pin, Saved, image_in, pin_of, pinned_container, read_pin, write_pin


class ReleaseTarget(Protocol):
    """One Deployment, and the way to change it.

    `container` is the one whose image holds the model, and `image` is that image. `written_at` names the files that are
    written, and `rollout` is the Argo Rollout that creates the pods; each is empty where there is none. `deployed` is
    the Deployment as it was read when the target was opened, None for an overlay.
    """

    kubectl: Kubectl
    deployment: str
    container: str
    image: str
    written_at: str
    rollout: str
    deployed: Object | None

    def pinned(self) -> Pin | None:
        """Return the version of the target now, or None when no release wrote it."""

    def write(self, pin: Pin) -> str:
        """Write the version, and return a unified diff of what `apply` changes.

        Nothing is written to the cluster yet.
        """

    def differs(self) -> str | None:
        """Return the cluster's own diff of what `apply` changes, or None."""

    def apply(self) -> None:
        """Apply what was written to the cluster."""

    def restore(self) -> None:
        """Undo `write`."""


class OverlayTarget:
    """Target that is a kustomize overlay."""

    def __init__(self, overlay: Path, kubectl: Kubectl, deployment: str | None = None) -> None:
        self.overlay = overlay
        self._saved = Saved(overlay)
        self._text, self._objects = kubectl.render(overlay)
        one = _serving(self._objects, overlay, deployment)
        self.deployment: str = one["metadata"]["name"]
        self.deployed: Object | None = None
        self.container = pinned_container(one["spec"]["template"])
        self.image, self.written_at = image_in(one["spec"]["template"]), str(overlay.resolve())
        rollouts = [one for one in self._objects if one["kind"] == "Rollout"]
        ours = [one for one in rollouts if one["spec"].get("workloadRef", {}).get("name") == self.deployment]
        self.rollout: str = ours[0]["metadata"]["name"] if ours else ""
        self.kubectl = _in_namespace(kubectl, one["metadata"].get("namespace"), overlay)

    def pinned(self) -> Pin | None:
        """Return the version that the overlay renders to."""
        return read_pin(self._objects, self.deployment)

    def write(self, pin: Pin) -> str:
        """Write release.yaml, list it, and return the diff of the rendered overlay.

        Raises InputError.
        """
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
        """Return the output of `kubectl diff -k`."""
        return self.kubectl.diff(self.overlay)

    def apply(self) -> None:
        """Run `kubectl apply -k`."""
        self.kubectl.apply(self.overlay)

    def restore(self) -> None:
        """Restore the former files."""
        self._saved.restore()


class LiveTarget:
    """Target that is a running Deployment, for a caller who may change nothing else."""

    def __init__(self, deployment: str, kubectl: Kubectl) -> None:
        found = kubectl.get("deployment", deployment)
        if found is None:
            raise InputError(f"there is no Deployment {deployment!r} in {'/'.join(kubectl.where())}; apply one first")
        self.kubectl, self.deployment = kubectl, deployment
        self.deployed: Object | None = found
        self._template: Object = found["spec"]["template"]
        self.container, self.image = pinned_container(self._template), image_in(self._template)
        # Without an overlay there is no known Rollout, and no file to write.
        self.written_at, self.rollout = "", ""
        self._patch: Object = {}

    def pinned(self) -> Pin | None:
        """Return the version in the annotations of the pods."""
        return pin_of(self._template)

    def write(self, pin: Pin) -> str:
        """Prepare the patch and return the diff of image and annotations.

        Nothing is written before `apply`.
        """
        self._patch = pin.patch(self.deployment)
        before = self.pinned()
        was = {**(before.annotations() if before else {}), "image": self.image}
        will = {**pin.annotations(), "image": pin.image}
        return _diff(*(yaml.safe_dump({key: one[key] for key in one if one[key]}) for one in (was, will)))

    def differs(self) -> str | None:
        """Return None: the diff of `write` is complete."""
        return None

    def apply(self) -> None:
        """Run `kubectl patch`."""
        self.kubectl.patch("deployment", self.deployment, self._patch)

    def restore(self) -> None:
        """Do nothing: no file was written."""


def read_snapshot(kubectl: Kubectl, name: str, deployment: Object | None = None) -> Snapshot | None:
    """Read a Deployment, unless it is given, with its ReplicaSets and pods.

    Returns None without a Deployment of that name.
    """
    deployment = deployment or kubectl.get("deployment", name)
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
        raise InputError(f"--namespace {kubectl.namespace}: {overlay} sets {namespace}; leave the option out")
    return Kubectl(kubectl.context, namespace, kubectl.program)


def _diff(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="")
    return "\n".join(lines)
