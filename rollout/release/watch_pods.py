"""Watch over the new pods of a Deployment: their rollout and the version that they serve."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import Bundle
from rollout.release.check_pods import PodCheck, check_server
from rollout.release.options import ReleaseOptions
from rollout.release.progress import PodStatus, RolloutProgress, RolloutState, Snapshot, advance, new_pods
from rollout.release.target import ReleaseTarget, read_snapshot
from rollout.release.version_pin import Pin

LOOK_EVERY_S = 2.0
PORT = 3000
FAILED_READS = 15
"""Reads of the cluster in a row that may fail before a rollout is given up."""


def watch_pods(target: ReleaseTarget, options: ReleaseOptions) -> RolloutProgress:
    """Watch the new pods until the rollout is complete or has failed."""
    progress = RolloutProgress(timeout_s=options.timeout_s, since=options.clock())
    while progress.state is RolloutState.WAITING:
        progress = advance(progress, read_pods(target, options), options.clock())
        options.listener.pods(progress)
        if progress.state is RolloutState.WAITING:
            options.pause(LOOK_EVERY_S)
    return progress


def read_pods(target: ReleaseTarget, options: ReleaseOptions) -> Snapshot:
    """Read the Deployment and its pods, with retries. Raises BentuneError.

    A restart of the API server is no failure of the version.
    """
    for attempt in range(FAILED_READS):
        try:
            now = read_snapshot(target.kubectl, target.deployment)
        except BentuneError:
            if attempt + 1 == FAILED_READS:
                raise
            options.pause(LOOK_EVERY_S)
            continue
        if now is None:
            raise BentuneError(f"the Deployment {target.deployment} was deleted during the rollout")
        return now
    raise AssertionError  # the last attempt returns or raises


def check_pods(
    target: ReleaseTarget, pin: Pin, bundle: Bundle | None, pods: Sequence[PodStatus], options: ReleaseOptions
) -> PodCheck:
    """Check each of the new `pods`, or with an address the server behind it."""
    if options.url:
        return _check(nullcontext(options.url), pin, bundle, options)
    check = PodCheck("no new pod was left to check")
    for pod in pods:
        found = _check(target.kubectl.forward(f"pod/{pod.name}", PORT), pin, bundle, options)
        if not found.problem:
            check = found
        # An autoscaler may have deleted the pod meanwhile.
        elif pod.name in {one["metadata"]["name"] for one in new_pods(read_pods(target, options))}:
            return replace(found, problem=f"{pod.name}: {found.problem}")
    return check


def _check(reached: AbstractContextManager[str], pin: Pin, bundle: Bundle | None, options: ReleaseOptions) -> PodCheck:
    try:
        with reached as url:
            return check_server(url.rstrip("/"), pin.content, bundle, pause=options.pause)
    except BentuneError as error:
        return PodCheck(f"it could not be checked: {error}")
