"""Watches the new pods of a Deployment until they do or do not, and asks them whether they are the version."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import Bundle
from rollout.release.check_pods import Proof, proven
from rollout.release.target import Place, snapshot
from rollout.release.version_pin import Pin
from rollout.release.watch import Snapshot, State, Watch, look, new_pods

LOOK_EVERY_S = 2.0
PORT = 3000
BLIND_LOOKS = 15
"""So many looks in a row may fail."""


class Listener(Protocol):
    """Who is told how it goes."""

    def say(self, renderable: Any) -> None:
        """A line for people."""

    def diff(self, text: str) -> None:
        """A unified diff of what is to be applied."""

    def pods(self, watch: Watch) -> None:
        """What the new pods do now."""


@dataclass(frozen=True)
class Means:
    """How the cluster is asked.

    `url` is where the Service is reached; without it each new pod is, through `kubectl port-forward`.
    """

    listener: Listener
    timeout_s: float
    url: str | None = None
    record: Path | None = None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def follow(place: Place, means: Means) -> Watch:
    """Look at the pods until the rollout is complete or has failed."""
    watch = Watch(timeout_s=means.timeout_s, since=means.clock())
    while watch.state is State.WAITING:
        watch = look(watch, look_again(place, means), means.clock())
        means.listener.pods(watch)
        if watch.state is State.WAITING:
            means.pause(LOOK_EVERY_S)
    return watch


def look_again(place: Place, means: Means) -> Snapshot:
    """What the cluster says; an API server that restarts says nothing about a version. Raises BentuneError."""
    for blind in range(BLIND_LOOKS):
        try:
            now = snapshot(place.kubectl, place.deployment)
        except BentuneError:
            if blind + 1 == BLIND_LOOKS:
                raise
            means.pause(LOOK_EVERY_S)
            continue
        if now is None:
            raise BentuneError(f"the Deployment {place.deployment} is gone: somebody deleted it")
        return now
    raise AssertionError  # the last look returns or raises


def ask(place: Place, pin: Pin, bundle: Bundle | None, means: Means) -> Proof:
    """Each of the new pods, or where an address was given whoever answers there."""
    if means.url:
        return _proof(nullcontext(means.url), pin, bundle, means)
    proof = Proof("no new pod was left to be asked")
    for name in [pod["metadata"]["name"] for pod in new_pods(look_again(place, means))]:
        asked = _proof(place.kubectl.forward(f"pod/{name}", PORT), pin, bundle, means)
        if asked.problem:
            still = {pod["metadata"]["name"] for pod in new_pods(look_again(place, means))}
            # An autoscaler may have taken it away meanwhile.
            if name in still:
                return replace(asked, problem=f"{name}: {asked.problem}")
        else:
            proof = asked
    return proof


def _proof(reached: AbstractContextManager[str], pin: Pin, bundle: Bundle | None, means: Means) -> Proof:
    try:
        with reached as url:
            return proven(url.rstrip("/"), pin.content, bundle, pause=means.pause)
    except BentuneError as error:
        return Proof(f"it could not be asked: {error}")
