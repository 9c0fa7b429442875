"""State of the cluster before a release or rollback, read once into one value."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from bentune.bundle.errors import BentuneError, InputError
from rollout.release.annotations import Annotations, UnderWay, read_annotations
from rollout.release.kubectl import Object
from rollout.release.progress import Snapshot, condition, revision
from rollout.release.target import ReleaseTarget, read_snapshot
from rollout.release.version_pin import Pin, image_in, pin_of
from rollout.server.live import read_identity

SERVICE_PORT = 80
PLACEHOLDERS = ("bentune/model", "bentune/bundle")
"""Placeholder images of k8s/: no registry has them, and an overlay has them until its first release."""


@dataclass(frozen=True)
class ClusterState:
    """State of the cluster before anything is changed.

    `before` is the version that serves, and `running` the one in the pod template; they differ where a release has
    begun and not ended. `template` is the pod template to return to and `replica_set` its ReplicaSet, both None where
    nothing serves. `kept` are the pod templates of earlier revisions, newest first. `live` is true when a cluster
    answered, `deployed` when it has the Deployment, and `first` when no version has served yet.
    """

    where: str
    before: Pin | None
    first: bool
    live: bool
    deployed: bool = False
    running: Pin | None = None
    template: Object | None = None
    replica_set: str | None = None
    annotations: Annotations = field(default_factory=Annotations)
    kept: tuple[Object, ...] = ()


def inspect(target: ReleaseTarget, mode: str) -> ClusterState:
    """Read the state of the cluster, or with `mode` "commit" that of the overlay.

    Raises InputError when `mode` is "apply" and no cluster answers.
    """
    # A target that was read from the cluster shows that it answers.
    live = mode != "commit" and (target.deployed is not None or target.kubectl.answers())
    if not live and mode == "apply":
        raise InputError("no cluster answers: give --context, or --commit to write the overlay only")
    context, namespace = target.kubectl.where()
    # Overlays of different clusters may share all of this, but not their directory.
    where = f"{context if live else f'commit:{target.written_at}'}/{namespace}/{target.deployment}"
    running = read_snapshot(target.kubectl, target.deployment, target.deployed) if live else None
    if running is not None:
        return _on_the_cluster(target, where, running)
    pin = None if live else target.pinned()
    first = live or (pin is None and _name_of(target.image) in PLACEHOLDERS)
    return ClusterState(where, pin, first, live, running=pin)


def identify(target: ReleaseTarget, state: ClusterState, url: str | None) -> ClusterState:
    """Identify a running version that no release wrote by its /info.

    Without `url`, its Service is reached through `kubectl port-forward`.
    """
    if state.first or state.before is not None or state.running is not None or not (url or state.live):
        return state
    return replace(state, before=_from_info(target, url))


def _on_the_cluster(target: ReleaseTarget, where: str, running: Snapshot) -> ClusterState:
    deployment = running.deployment
    template, annotations = deployment["spec"]["template"], read_annotations(deployment)
    pin, number = pin_of(template), revision(deployment)
    current = [one["metadata"]["name"] for one in running.replica_sets if number and revision(one) == number]
    state = ClusterState(
        where,
        pin,
        first=False,
        live=True,
        deployed=True,
        running=pin,
        template=template,
        replica_set=current[0] if current else None,
        annotations=annotations,
        kept=_kept(running),
    )
    if target.rollout:
        return _with_rollout(target, state, running)
    if not int(deployment["spec"].get("replicas", 1)):
        raise InputError(
            f"the Deployment {target.deployment} has 0 replicas: no pod would prove the version; scale it, or, where "
            "Argo Rollouts makes its pods, give the --overlay that has the Rollout"
        )
    begun = annotations.under_way
    if begun is not None and pin is not None and (pin.content, pin.image) == (begun.content, begun.image):
        return _unfinished(state, running, begun)
    return _first(state) if pin is None and _never_served(running) else state


def _unfinished(state: ClusterState, running: Snapshot, begun: UnderWay) -> ClusterState:
    """Replace the running version, never proven, with the one that served before it."""
    if begun.replica_set is None:
        # The first release of all: where its pods serve, the next one is compared with it.
        return state if _available(running) else _first(state)
    former = [one for one in running.replica_sets if one["metadata"]["name"] == begun.replica_set]
    template = former[0]["spec"]["template"] if former else None
    before = pin_of(template) if template else None
    if before is None and begun.former:
        image = image_in(template) if template else ""
        before = Pin(begun.tag or begun.former, begun.former, image)
    if template is None:
        return replace(state, before=before)
    return replace(state, before=before, template=_of_deployment(template), replica_set=begun.replica_set)


def _first(state: ClusterState) -> ClusterState:
    return replace(state, before=None, first=True, template=None, replica_set=None)


def _with_rollout(target: ReleaseTarget, state: ClusterState, running: Snapshot) -> ClusterState:
    """Replace the running version with that of the Argo Rollout's stable pods.

    The stable pods are those that serve.
    """
    rollout = target.kubectl.get("rollouts.argoproj.io", target.rollout)
    status = rollout.get("status", {}) if rollout else {}
    stable = [
        one["spec"]["template"]
        for one in running.replica_sets
        if status.get("stableRS")
        and one["metadata"].get("labels", {}).get("rollouts-pod-template-hash") == status["stableRS"]
    ]
    if not stable:
        return state
    before = pin_of(stable[0])
    aborted = status.get("abort") and state.running
    annotations = state.annotations.leaving(state.running.content) if aborted and state.running else state.annotations
    # By creation time: Argo numbers the revisions of its ReplicaSets in its own way.
    kept = [one for one in running.replica_sets if one["spec"]["template"] is not stable[0]]
    kept.sort(key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True)
    templates = tuple(one["spec"]["template"] for one in kept)
    return replace(state, before=before, annotations=annotations, kept=templates)


def _from_info(target: ReleaseTarget, url: str | None) -> Pin | None:
    """Return the version that /info names, or None when no Bentune service answers."""
    reached: AbstractContextManager[str] = (
        nullcontext(url) if url else target.kubectl.forward(f"service/{target.deployment}", SERVICE_PORT)
    )
    try:
        with reached as address:
            identity = read_identity(address)
    except BentuneError:
        return None
    return Pin(identity.tag, identity.content, target.image, target.container)


def _name_of(image: str) -> str:
    """Return an image's name without its tag and digest."""
    folder, slash, last = image.partition("@")[0].rpartition("/")
    return folder + slash + last.partition(":")[0]


def _available(running: Snapshot) -> bool:
    return int(running.deployment.get("status", {}).get("availableReplicas", 0)) > 0


def _never_served(running: Snapshot) -> bool:
    """Return true when no pod has ever been available.

    This is the state after a first `kubectl apply` that failed.
    """
    through = condition(running.deployment, "Progressing").get("reason") == "NewReplicaSetAvailable"
    return not _available(running) and not through and len(running.replica_sets) <= 1


def _kept(running: Snapshot) -> tuple[Object, ...]:
    current = revision(running.deployment) or 0
    earlier = [one for one in running.replica_sets if (revision(one) or 0) < current]
    earlier.sort(key=lambda one: revision(one) or 0, reverse=True)
    return tuple(one["spec"]["template"] for one in earlier)


def _of_deployment(template: Object) -> Object:
    """Return a ReplicaSet's template without the label of the Deployment's controller."""
    metadata = template["metadata"]
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key != "pod-template-hash"}
    return {**template, "metadata": {**metadata, "labels": labels}}
