"""Judges a rollout by what Kubernetes says of a Deployment, its ReplicaSets and their pods. Asks nobody itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

Object = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
# What a pod waits for that no waiting brings. An image that is slow to come says something else.
HOPELESS = {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
}
# A pod that a node lost says nothing about its version.
LOST = {"Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated", "UnexpectedAdmissionError"}


class State(StrEnum):
    """What has come of a rollout."""

    WAITING = "waiting"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True)
class Snapshot:
    """Kubernetes' own objects at one moment; `pods` and `replica_sets` may hold those of others."""

    deployment: Object
    replica_sets: Sequence[Object]
    pods: Sequence[Object]


@dataclass(frozen=True)
class Pod:
    """A pod of the new version: `state` in a few words, `trouble` why it will not do, or nothing."""

    name: str
    ready: bool
    restarts: int
    state: str
    trouble: str = ""


@dataclass(frozen=True)
class Watch:
    """What is remembered between two looks. Times are seconds of one clock.

    `timeout_s` is how long to wait for the next pod to turn ready, and `since` when the last one did.
    """

    timeout_s: float
    since: float
    most_ready: int = 0
    state: State = State.WAITING
    reason: str = ""
    pods: tuple[Pod, ...] = ()


def look(before: Watch, now: Snapshot, at: float) -> Watch:
    """The watch after one more look, at the time `at`. What is complete or failed stays so."""
    if before.state is not State.WAITING:
        return before
    pods = tuple(describe(one) for one in new_pods(now))
    ready = sum(pod.ready for pod in pods)
    progressed = ready > before.most_ready
    after = replace(
        before,
        pods=pods,
        most_ready=max(ready, before.most_ready),
        since=at if progressed else before.since,
    )
    troubles = [f"{pod.name} {pod.trouble}" for pod in pods if pod.trouble]
    if troubles:
        return replace(after, state=State.FAILED, reason=troubles[0])
    if complete(now):
        return replace(after, state=State.COMPLETE)
    stuck = condition(now.deployment, "Progressing")
    if observed(now.deployment) and stuck.get("reason") == "ProgressDeadlineExceeded":
        return replace(after, state=State.FAILED, reason=f"no progress: {stuck.get('message', 'past its deadline')}")
    if at - after.since > after.timeout_s:
        waiting = ", ".join(f"{pod.name} is {pod.state}" for pod in pods if not pod.ready) or "old pods do not go away"
        return replace(
            after, state=State.FAILED, reason=f"nothing new was ready for {after.timeout_s:.0f} s: {waiting}"
        )
    return after


def observed(deployment: Object) -> bool:
    """Whether the controller has seen the newest spec: before that, the status speaks of another."""
    return int(deployment.get("status", {}).get("observedGeneration", 0)) >= int(deployment["metadata"]["generation"])


def complete(now: Snapshot) -> bool:
    """Every replica is of the newest spec and available, and no other is left, as `kubectl rollout status` asks for."""
    status, wanted = now.deployment.get("status", {}), int(now.deployment["spec"].get("replicas", 1))
    counts = (int(status.get(key, 0)) for key in ("updatedReplicas", "replicas", "availableReplicas"))
    return observed(now.deployment) and all(count == wanted for count in counts)


def revision(deployment: Object) -> int | None:
    """The number by which `kubectl rollout undo` knows what runs; None before a controller has seen it."""
    found = deployment["metadata"].get("annotations", {}).get(REVISION)
    return int(found) if found else None


def condition(deployment: Object, kind: str) -> dict[str, str]:
    """The Deployment's condition of that type, or an empty one."""
    return next((one for one in deployment.get("status", {}).get("conditions", []) if one["type"] == kind), {})


def new_pods(now: Snapshot) -> list[Object]:
    """The pods of the newest spec that are not on their way out, by name."""
    if not observed(now.deployment):
        return []
    number = revision(now.deployment)
    owners = {
        one["metadata"]["uid"]
        for one in now.replica_sets
        if _owned(one, {now.deployment["metadata"]["uid"]}) and number is not None and revision(one) == number
    }
    found = [pod for pod in now.pods if _owned(pod, owners) and not pod["metadata"].get("deletionTimestamp")]
    return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def describe(pod: Object) -> Pod:
    """One line of a pod: what it does, and why it will never serve, if so."""
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    restarts = sum(int(one.get("restartCount", 0)) for one in containers)
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
    waiting = [one["state"]["waiting"].get("reason", "") for one in containers if "waiting" in one.get("state", {})]
    state = "ready" if ready else next(filter(None, waiting), status.get("phase", "unknown"))
    if not ready and state == "Running":
        state = "running, not ready"
    return Pod(str(pod["metadata"]["name"]), ready, restarts, state, _trouble(status, containers, waiting))


def _trouble(status: Object, containers: list[Object], waiting: list[str]) -> str:
    if status.get("phase") == "Failed":
        return "" if status.get("reason") in LOST else f"failed: {status.get('reason') or 'its container ended'}"
    for one in containers:
        # A restart shows what ended before as the last state.
        ended = one.get("lastState", {}).get("terminated") or one.get("state", {}).get("terminated")
        if ended and (ended.get("exitCode") or int(one.get("restartCount", 0))):
            return f"restarts: it exited with {ended.get('exitCode')} ({ended.get('reason', 'no reason given')})"
        if int(one.get("restartCount", 0)):
            return f"restarted {one['restartCount']} times"
    hopeless = [reason for reason in waiting if reason in HOPELESS]
    return f"cannot start: {hopeless[0]}" if hopeless else ""


def _owned(one: Object, owners: set[str]) -> bool:
    return any(owner["uid"] in owners for owner in one["metadata"].get("ownerReferences", []))
