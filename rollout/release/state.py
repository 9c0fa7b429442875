"""What is there before a release or a rollback: what serves, what was begun and not ended, what is not to come back."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from bentune.bundle.errors import BentuneError, InputError
from rollout.release.annotations import Marks, UnderWay, marks_of
from rollout.release.target import Place, snapshot
from rollout.release.version_pin import Pin, image_in, pin_of
from rollout.release.watch import Snapshot, condition, revision
from rollout.server.served import asked

Object = dict[str, Any]

SERVICE_PORT = 80
OURS = ("bentune/model", "bentune/bundle")
"""The images that k8s/ names: what no registry has, and an overlay has until somebody deploys it."""


@dataclass(frozen=True)
class Now:
    """What is there. `before` is the version that serves, `running` the one that the pods are made of by now.

    They differ where a release was begun and not ended. `template` is the pods' to return to and `replica_set` its
    ReplicaSet, None where nothing serves. `kept` are the pod templates of earlier revisions, newest first.
    """

    where: str
    before: Pin | None
    first: bool
    live: bool
    deployed: bool = False
    running: Pin | None = None
    template: Object | None = None
    replica_set: str | None = None
    marks: Marks = field(default_factory=Marks)
    kept: tuple[Object, ...] = ()


def found(place: Place, mode: str) -> Now:
    """What there is before anything is changed. Raises InputError when a cluster is needed and none answers.

    With --commit the overlay is the truth, and otherwise the cluster is, if one answers.
    """
    live = mode != "commit" and place.kubectl.answers()
    if not live and mode == "apply":
        raise InputError("no cluster answers: give --context, or --commit to write the overlay only")
    context, namespace = place.kubectl.where()
    # Overlays of different clusters may have all of this in common, but not where they are.
    where = f"{context if live else f'commit:{place.written_at}'}/{namespace}/{place.deployment}"
    running = snapshot(place.kubectl, place.deployment) if live else None
    if running is not None:
        return _on_the_cluster(place, where, running)
    pin = None if live else place.pinned()
    return Now(where, pin, live or (pin is None and _named(place.image) in OURS), live, running=pin)


def identified(place: Place, now: Now, url: str | None) -> Now:
    """With what /info says of what runs and no release wrote: at `url`, or through a port of this machine."""
    if now.first or now.before is not None or now.running is not None or not (url or now.live):
        return now
    return replace(now, before=_by_asking(place, url))


def _on_the_cluster(place: Place, where: str, running: Snapshot) -> Now:
    deployment = running.deployment
    template, marks = deployment["spec"]["template"], marks_of(deployment)
    pin, number = pin_of(template), revision(deployment)
    current = [one["metadata"]["name"] for one in running.replica_sets if number and revision(one) == number]
    now = Now(
        where,
        pin,
        first=False,
        live=True,
        deployed=True,
        running=pin,
        template=template,
        replica_set=current[0] if current else None,
        marks=marks,
        kept=_kept(running),
    )
    if place.rollout:
        return _of_rollout(place, now, running)
    if not int(deployment["spec"].get("replicas", 1)):
        raise InputError(
            f"the Deployment {place.deployment} has 0 replicas: no pod would prove the version; scale it, or, where "
            "Argo Rollouts makes its pods, give the --overlay that has the Rollout"
        )
    begun = marks.under_way
    if begun is not None and pin is not None and (pin.content, pin.image) == (begun.content, begun.image):
        return _unfinished(now, running, begun)
    return _first(now) if pin is None and _never_served(running) else now


def _unfinished(now: Now, running: Snapshot, begun: UnderWay) -> Now:
    """What runs was never proven: what served before it counts."""
    if begun.replica_set is None:
        # The first of all; where its pods serve, there is something to be compared with.
        return now if _available(running) else _first(now)
    former = [one for one in running.replica_sets if one["metadata"]["name"] == begun.replica_set]
    template = former[0]["spec"]["template"] if former else None
    before = pin_of(template) if template else None
    if before is None and begun.former:
        image = image_in(template) if template else ""
        before = Pin(begun.tag or begun.former, begun.former, image)
    if template is None:
        return replace(now, before=before)
    return replace(now, before=before, template=_of_deployment(template), replica_set=begun.replica_set)


def _first(now: Now) -> Now:
    return replace(now, before=None, first=True, template=None, replica_set=None)


def _of_rollout(place: Place, now: Now, running: Snapshot) -> Now:
    """With Argo what is applied does not serve before the Rollout is through: the stable pods' version does."""
    rollout = place.kubectl.get("rollouts.argoproj.io", place.rollout)
    status = rollout.get("status", {}) if rollout else {}
    stable = [
        one["spec"]["template"]
        for one in running.replica_sets
        if status.get("stableRS")
        and one["metadata"].get("labels", {}).get("rollouts-pod-template-hash") == status["stableRS"]
    ]
    if not stable:
        return now
    before = pin_of(stable[0])
    marks = now.marks.leaving(now.running.content) if status.get("abort") and now.running else now.marks
    # By when they were made: Argo's ReplicaSets have revisions of their own.
    kept = [one for one in running.replica_sets if one["spec"]["template"] is not stable[0]]
    kept.sort(key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True)
    return replace(now, before=before, marks=marks, kept=tuple(one["spec"]["template"] for one in kept))


def _by_asking(place: Place, url: str | None) -> Pin | None:
    """What /info says that runs, or None when nobody answers."""
    reached: AbstractContextManager[str] = (
        nullcontext(url) if url else place.kubectl.forward(f"service/{place.deployment}", SERVICE_PORT)
    )
    try:
        with reached as address:
            tag, content = asked(address)
    except BentuneError:
        return None
    return Pin(tag, content, place.image, place.container)


def _named(image: str) -> str:
    """An image's name without its tag and digest."""
    folder, slash, last = image.partition("@")[0].rpartition("/")
    return folder + slash + last.partition(":")[0]


def _available(running: Snapshot) -> bool:
    return int(running.deployment.get("status", {}).get("availableReplicas", 0)) > 0


def _never_served(running: Snapshot) -> bool:
    """Whether no pod of the Deployment has ever been available, as after a first `kubectl apply` that failed."""
    through = condition(running.deployment, "Progressing").get("reason") == "NewReplicaSetAvailable"
    return not _available(running) and not through and len(running.replica_sets) <= 1


def _kept(running: Snapshot) -> tuple[Object, ...]:
    current = revision(running.deployment) or 0
    earlier = [one for one in running.replica_sets if (revision(one) or 0) < current]
    earlier.sort(key=lambda one: revision(one) or 0, reverse=True)
    return tuple(one["spec"]["template"] for one in earlier)


def _of_deployment(template: Object) -> Object:
    """A ReplicaSet's template without the label that the Deployment's controller adds to it."""
    metadata = template["metadata"]
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key != "pod-template-hash"}
    return {**template, "metadata": {**metadata, "labels": labels}}
