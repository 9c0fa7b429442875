"""Progress of a rollout, judged from snapshots of a Deployment, its ReplicaSets and pods."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from rollout.release.kubectl import Object

REVISION = "deployment.kubernetes.io/revision"
# Reasons for waiting that do not end by themselves; a slow pull of an image has another reason.
HOPELESS = {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
}
# Reasons for a failed pod that come from its node, not from the version in it.
LOST = {"Evicted", "NodeLost", "NodeShutdown", "Preempting", "Shutdown", "Terminated", "UnexpectedAdmissionError"}


class RolloutState(StrEnum):
    """State of a rollout."""

    WAITING = "waiting"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True)
class Snapshot:
    """Objects of the cluster at one moment.

    `pods` and `replica_sets` may include those of other Deployments.
    """

    deployment: Object
    replica_sets: Sequence[Object]
    pods: Sequence[Object]


@dataclass(frozen=True)
class PodStatus:
    """Status of a new pod.

    `state` is in a few words; `trouble` is the reason why the pod will never serve, or empty.
    """

    name: str
    ready: bool
    restarts: int
    state: str
    trouble: str = ""


@dataclass(frozen=True)
class RolloutProgress:
    """Progress of a rollout so far, carried from one snapshot to the next.

    Times are seconds of one clock. `timeout_s` is the longest wait for the next pod to turn ready, and `since` the time
    when the last one did.
    """

    timeout_s: float
    since: float
    most_ready: int = 0
    state: RolloutState = RolloutState.WAITING
    reason: str = ""
    pods: tuple[PodStatus, ...] = ()


def advance(before: RolloutProgress, now: Snapshot, at: float) -> RolloutProgress:
    """Return the progress after a snapshot at the time `at`.

    A complete or failed rollout stays so.
    """
    if before.state is not RolloutState.WAITING:
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
        return replace(after, state=RolloutState.FAILED, reason=troubles[0])
    if complete(now):
        return replace(after, state=RolloutState.COMPLETE)
    stuck = condition(now.deployment, "Progressing")
    if observed(now.deployment) and stuck.get("reason") == "ProgressDeadlineExceeded":
        reason = f"no progress: {stuck.get('message', 'past its deadline')}"
        return replace(after, state=RolloutState.FAILED, reason=reason)
    if at - after.since > after.timeout_s:
        waiting = ", ".join(f"{pod.name} is {pod.state}" for pod in pods if not pod.ready) or "old pods do not end"
        reason = f"nothing new was ready for {after.timeout_s:.0f} s: {waiting}"
        return replace(after, state=RolloutState.FAILED, reason=reason)
    return after


def observed(deployment: Object) -> bool:
    """Return true once the controller has processed the newest spec.

    Until then the status is that of an older spec.
    """
    return int(deployment.get("status", {}).get("observedGeneration", 0)) >= int(deployment["metadata"]["generation"])


def complete(now: Snapshot) -> bool:
    """Return true if all pods are new and available, as `kubectl rollout status` does."""
    status, wanted = now.deployment.get("status", {}), int(now.deployment["spec"].get("replicas", 1))
    counts = (int(status.get(key, 0)) for key in ("updatedReplicas", "replicas", "availableReplicas"))
    return observed(now.deployment) and all(count == wanted for count in counts)


def revision(deployment: Object) -> int | None:
    """Return the revision number of `kubectl rollout undo`.

    None before a controller has set it.
    """
    found = deployment["metadata"].get("annotations", {}).get(REVISION)
    return int(found) if found else None


def condition(deployment: Object, kind: str) -> dict[str, str]:
    """Return the Deployment's condition of that type, or an empty one."""
    return next((one for one in deployment.get("status", {}).get("conditions", []) if one["type"] == kind), {})


def new_pods(now: Snapshot) -> list[Object]:
    """Return the pods of the newest spec that are not being deleted, by name."""
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


def describe(pod: Object) -> PodStatus:
    """Summarize a pod's status."""
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    restarts = sum(int(one.get("restartCount", 0)) for one in containers)
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
    waiting = [one["state"]["waiting"].get("reason", "") for one in containers if "waiting" in one.get("state", {})]
    state = "ready" if ready else next(filter(None, waiting), status.get("phase", "unknown"))
    if not ready and state == "Running":
        state = "running, not ready"
    return PodStatus(str(pod["metadata"]["name"]), ready, restarts, state, _trouble(status, containers, waiting))


def _trouble(status: Object, containers: list[Object], waiting: list[str]) -> str:
    if status.get("phase") == "Failed":
        return "" if status.get("reason") in LOST else f"failed: {status.get('reason') or 'its container ended'}"
    for one in containers:
        # After a restart, the end before it is the last state.
        ended = one.get("lastState", {}).get("terminated") or one.get("state", {}).get("terminated")
        if ended and (ended.get("exitCode") or int(one.get("restartCount", 0))):
            return f"restarts: it exited with {ended.get('exitCode')} ({ended.get('reason', 'no reason given')})"
        if int(one.get("restartCount", 0)):
            return f"restarted {one['restartCount']} times"
    hopeless = [reason for reason in waiting if reason in HOPELESS]
    return f"cannot start: {hopeless[0]}" if hopeless else ""


def _owned(one: Object, owners: set[str]) -> bool:
    return any(owner["uid"] in owners for owner in one["metadata"].get("ownerReferences", []))
