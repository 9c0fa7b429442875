"""Brings a version to a cluster and watches it: what fails readiness, restarts or answers wrongly is taken back."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from rollout.gate import may_release
from rollout.overlay import Pin, pin_of
from rollout.place import Place, snapshot
from rollout.proof import unproven
from rollout.releases import Action, Release, append, read, served
from rollout.store import find_bundle
from rollout.watch import Snapshot, State, Watch, describe, look, new_pods, revision
from service.contract import Bundle
from service.errors import BentuneError, InputError

LOOK_EVERY_S = 2.0
SERVICE_PORT = 80


class Listener(Protocol):
    """Who is told how it goes."""

    def say(self, renderable: Any) -> None:
        """A line for people."""

    def diff(self, text: str) -> None:
        """A unified diff of what is to be applied."""

    def pods(self, watch: Watch) -> None:
        """What the new pods do now."""


@dataclass(frozen=True)
class Outcome:
    """How a release or a rollback ended.

    `problem` is empty when the version serves; `undone` says that what was before serves again. `before` is what was
    served, if that is known; `pods` how many serve the version; `golden` the rows that were asked.
    """

    pin: Pin
    where: str
    before: Pin | None
    diff: str
    applied: bool
    problem: str = ""
    undone: bool = False
    pods: int = 0
    golden: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Now:
    """What is there before a release. `kept` are the pod templates of earlier revisions, newest first."""

    where: str
    before: Pin | None
    first: bool
    live: bool
    kept: list[dict[str, Any]]


@dataclass(frozen=True)
class Means:
    """How the cluster is asked. `url` is where the Service is reached; without it through `kubectl port-forward`."""

    listener: Listener
    timeout_s: float
    url: str | None = None
    record: Path | None = None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def release(
    place: Place,
    bundle: Bundle,
    image: str,
    means: Means,
    *,
    force: bool = False,
    reason: str = "",
    mode: str = "apply",
) -> Outcome:
    """Release `bundle`, which is in `image`: write it, apply it, watch it, ask it, and take it back when it is no good.

    `mode` is "apply", "dry-run" (nothing is changed), or "commit" (only the overlay is written). Raises GateError when
    the verdict forbids it, InputError and BentuneError; what happens to the pods is in the outcome.
    """
    began, now = means.clock(), found(place, mode)
    word = may_release(bundle, now.before, first=now.first, force=force, reason=reason)
    if now.first:
        means.listener.say(f"{place.deployment} is not deployed yet: the first version needs no verdict")
    again = now.before is not None and now.before.content == bundle.content
    why = reason or (now.before.forced if now.before and again else None)
    pin = Pin(bundle.tag, bundle.content, image, place.container, bundle.digest, word, why)
    outcome = _written(place, pin, now, means, mode)
    if mode == "dry-run":
        return outcome
    if mode == "apply":
        outcome = carry_out(place, outcome, bundle, means)
    if not outcome.problem:
        _record(means, outcome, Action.RELEASED, pin, reason)
    return replace(outcome, seconds=means.clock() - began)


def rollback(place: Place, means: Means, *, mode: str = "apply") -> Outcome:
    """Return to the last version that was released and not taken back, as `release` does.

    The record of releases says which; without one, the ReplicaSets that the cluster keeps. Raises InputError when
    there is none.
    """
    began, now = means.clock(), found(place, mode)
    target, bundle = _earlier(place, means, now)
    outcome = _written(place, target, now, means, mode)
    if mode == "dry-run":
        return outcome
    if mode == "apply":
        # Not taken back when it fails: what it would return to is what somebody flees from.
        outcome = carry_out(place, outcome, bundle, means, undo=False)
    if not outcome.problem:
        _record(means, outcome, Action.ROLLED_BACK, target, f"from {now.before.tag}" if now.before else "")
    return replace(outcome, seconds=means.clock() - began)


def found(place: Place, mode: str) -> Now:
    """What there is before anything is changed. Raises InputError when a cluster is needed and none answers.

    With --commit the overlay is the truth, and otherwise the cluster is, if one answers.
    """
    live = mode != "commit" and place.kubectl.answers()
    if not live and mode == "apply":
        raise InputError("no cluster answers: give --context, or --commit to write the overlay only")
    running = snapshot(place.kubectl, place.deployment) if live else None
    before = pin_of(running.deployment["spec"]["template"]) if running else None if live else place.pinned()
    context, namespace = place.kubectl.where()
    where = f"{context if live else 'commit'}/{namespace}/{place.deployment}"
    return Now(where, before, running is None if live else before is None, live, _kept(running))


def _written(place: Place, pin: Pin, now: Now, means: Means, mode: str) -> Outcome:
    diff = place.write(pin)
    means.listener.diff(diff)
    if mode == "dry-run":
        try:
            changes = place.differs() if now.live else None
        finally:
            place.restore()
        if changes:
            means.listener.say("and what the cluster has would change by this, `kubectl diff` says:")
            means.listener.diff(changes)
    return Outcome(pin, now.where, now.before, diff, applied=False)


def carry_out(place: Place, outcome: Outcome, bundle: Bundle | None, means: Means, *, undo: bool = True) -> Outcome:
    """Apply what was written, watch the pods, ask the Service; undo it when something is wrong."""
    earlier = snapshot(place.kubectl, place.deployment)
    try:
        place.apply()
    except BentuneError:
        place.restore()
        raise
    if place.handed_over:
        means.listener.say(
            f"Argo Rollouts goes on by itself: kubectl argo rollouts get rollout {place.deployment} --watch"
        )
        return replace(outcome, applied=True)
    watch = follow(place, means)
    problem = watch.reason or _asked(place, outcome.pin, bundle, means)
    if not problem:
        # What turned ready may have fallen over when it was asked.
        now = snapshot(place.kubectl, place.deployment)
        pods = [describe(one) for one in new_pods(now)] if now else []
        problem = next((f"{pod.name} {pod.trouble}" for pod in pods if pod.trouble), "")
    rows = len(bundle.golden) if bundle and not problem else 0
    done = replace(outcome, applied=True, problem=problem, pods=len(watch.pods), golden=rows)
    if not problem or not undo:
        return done
    if earlier is None:
        means.listener.say(
            "nothing ran before: it is left as it is, for you to look at; no pod that is not ready serves"
        )
        return done
    return replace(done, undone=_undo(place, done, earlier.deployment, means))


def follow(place: Place, means: Means) -> Watch:
    """Look at the pods until the rollout is complete or has failed."""
    watch = Watch(timeout_s=means.timeout_s, since=means.clock())
    while watch.state is State.WAITING:
        now = snapshot(place.kubectl, place.deployment)
        if now is None:
            raise BentuneError(f"the Deployment {place.deployment} is gone: somebody deleted it")
        watch = look(watch, now, means.clock())
        means.listener.pods(watch)
        if watch.state is State.WAITING:
            means.pause(LOOK_EVERY_S)
    return watch


def _asked(place: Place, pin: Pin, bundle: Bundle | None, means: Means) -> str:
    reached: AbstractContextManager[str] = (
        nullcontext(means.url) if means.url else place.kubectl.forward(place.deployment, SERVICE_PORT)
    )
    try:
        with reached as url:
            return unproven(url.rstrip("/"), pin.content, bundle, pause=means.pause)
    except BentuneError as error:
        return f"the Service could not be asked: {error}"


def _undo(place: Place, outcome: Outcome, earlier: dict[str, Any], means: Means) -> bool:
    """Whether what ran before serves again. The same template finds the ReplicaSet that is still there."""
    means.listener.say(f"[red]✗[/] {outcome.problem}")
    means.listener.say(f"undoing: back to revision {revision(earlier)}")
    place.kubectl.undo(place.deployment, earlier["spec"]["template"])
    place.restore()
    _record(means, outcome, Action.UNDONE, outcome.pin, outcome.problem)
    return follow(place, means).state is State.COMPLETE


def _record(means: Means, outcome: Outcome, action: Action, pin: Pin, reason: str) -> None:
    line = Release(
        at=datetime.now(UTC),
        tag=pin.tag,
        content=pin.content,
        where=outcome.where,
        action=action,
        image=pin.image,
        reason=reason,
    )
    append(line, means.record)


def _earlier(place: Place, means: Means, now: Now) -> tuple[Pin, Bundle | None]:
    """The version to return to, and its bundle where the store still has it."""
    before = now.before
    for one in reversed(served(read(means.record), now.where)):
        if before is None or (one.content, one.image) != (before.content, before.image):
            return _with_bundle(Pin(one.tag, one.content, one.image, place.container, verdict="rolled back to"))
    for pin in filter(None, map(pin_of, now.kept)):
        if before is None or pin.content != before.content:
            return _with_bundle(replace(pin, verdict="rolled back to", forced=None))
    raise InputError(
        f"no earlier release of {now.where} is known, neither here nor to the cluster: `bentune release` one"
    )


def _kept(running: Snapshot | None) -> list[dict[str, Any]]:
    if running is None:
        return []
    current = revision(running.deployment) or 0
    earlier = [one for one in running.replica_sets if (revision(one) or 0) < current]
    return [one["spec"]["template"] for one in sorted(earlier, key=lambda one: revision(one) or 0, reverse=True)]


def _with_bundle(pin: Pin) -> tuple[Pin, Bundle | None]:
    try:
        bundle = find_bundle(pin.tag)
    except InputError:
        return pin, None
    # The store's may be another of the same name.
    return (replace(pin, digest=bundle.digest), bundle) if bundle.content == pin.content else (pin, None)
