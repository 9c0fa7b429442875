"""Application of a version to the cluster, undone after a problem or an exception."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from rich.markup import escape

from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import Bundle
from rollout.release.annotations import Annotations, UnderWay
from rollout.release.check_pods import PodCheck
from rollout.release.options import ReleaseOptions
from rollout.release.progress import RolloutState, describe, new_pods
from rollout.release.state import ClusterState
from rollout.release.target import ReleaseTarget, read_snapshot
from rollout.release.version_pin import Pin, pin_of
from rollout.release.watch_pods import check_pods, read_pods, watch_pods

UNDO_TRIES, UNDO_EVERY_S = 5, 2.0


@dataclass(frozen=True)
class ReleaseOutcome:
    """Outcome of a release or rollback.

    `problem` is empty when the version serves, and `undone` is true when the former version serves again. `before` is
    the version that served, if it is known. `pods` counts the pods of the version, and `golden` the golden rows that
    were checked. `grounds` is a summary of the comparison behind the verdict.
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
    grounds: str = ""


@dataclass(frozen=True)
class Callbacks:
    """Functions that record a release.

    `applied` is called after the apply; `undone` after an undo, with the problem and true if the pods were judged.
    """

    applied: Callable[[], None] = lambda: None
    undone: Callable[[str, bool], None] = lambda _problem, _judged: None


def apply_release(
    target: ReleaseTarget,
    outcome: ReleaseOutcome,
    bundle: Bundle | None,
    options: ReleaseOptions,
    state: ClusterState,
    callbacks: Callbacks,
) -> ReleaseOutcome:
    """Apply what was written, watch and check the pods, and undo it after a problem.

    After any exception in between, also from Ctrl-C and SIGTERM, the former version is restored first.
    """
    try:
        if state.deployed and not target.rollout:
            _annotate(target, replace(state.annotations, under_way=_begun(outcome.pin, state)))
    except BaseException:
        target.restore()
        raise
    with _sigterm_as_exit():
        try:
            target.apply()
            if not state.deployed and not target.rollout:
                _annotate_first(target, outcome.pin, state, options)
            callbacks.applied()
            if target.rollout:
                return _handed_over(target, outcome, options)
            done = _judge(target, outcome, bundle, options)
        except BaseException as error:
            if not state.deployed and not target.rollout:
                _annotate_first(target, outcome.pin, state, options)
            problem = str(error) or type(error).__name__
            _undo(target, state, options, callbacks, outcome.pin, problem, judged=False)
            raise
        if not done.problem:
            after = state.annotations.without(done.pin.content)
            _try(options, lambda: _annotate(target, after), "its annotations were not cleared")
            return done
        if state.template is None:
            options.listener.say(
                "nothing ran before: the pods stay for inspection; a pod that is not ready gets no requests"
            )
            return done
        undone, problem = _undo(target, state, options, callbacks, done.pin, done.problem, judged=True)
        return replace(done, problem=problem, undone=undone and _serves_again(target, options))


def apply_rollback(
    target: ReleaseTarget,
    outcome: ReleaseOutcome,
    bundle: Bundle | None,
    options: ReleaseOptions,
    state: ClusterState,
    callbacks: Callbacks,
) -> ReleaseOutcome:
    """Apply a rollback, watch and check the pods.

    A rollback is never undone: that would return to the version that it left.
    """
    problem = ""
    try:
        target.apply()
    except BaseException as error:
        if not _arrived(target, outcome.pin):
            target.restore()
            raise
        if not isinstance(error, BentuneError):
            callbacks.applied()
            raise
        problem = f"applied in part: {error}"
    callbacks.applied()
    gone = state.running
    annotations = state.annotations.without(outcome.pin.content)
    if gone is not None and gone.content != outcome.pin.content:
        annotations = annotations.leaving(gone.content)
    _try(options, lambda: _annotate(target, annotations), "the version that was left is not annotated")
    if target.rollout:
        return replace(_handed_over(target, outcome, options), problem=problem)
    done = _judge(target, outcome, bundle, options)
    return replace(done, problem=problem or done.problem)


def _judge(
    target: ReleaseTarget, outcome: ReleaseOutcome, bundle: Bundle | None, options: ReleaseOptions
) -> ReleaseOutcome:
    progress = watch_pods(target, options)
    check = (
        PodCheck(progress.reason)
        if progress.reason
        else check_pods(target, outcome.pin, bundle, progress.pods, options)
    )
    problem = check.problem
    if not problem:
        # A ready pod may have failed under the requests of the check.
        pods = [describe(one) for one in new_pods(read_pods(target, options))]
        problem = next((f"{pod.name} {pod.trouble}" for pod in pods if pod.trouble), "")
    if not problem and bundle is not None and check.digest not in {None, bundle.digest}:
        options.listener.say(
            f"[yellow]the pods' digest is {escape(str(check.digest)[:12])}, the store's {bundle.digest[:12]}[/]: "
            "the same model with other evidence; the image was built before the last `bentune compare`"
        )
    rows = len(bundle.golden) if bundle and not problem else 0
    return replace(outcome, applied=True, problem=problem, pods=len(progress.pods), golden=rows)


def _undo(
    target: ReleaseTarget,
    state: ClusterState,
    options: ReleaseOptions,
    callbacks: Callbacks,
    pin: Pin,
    problem: str,
    *,
    judged: bool,
) -> tuple[bool, str]:
    """Restore the former template in the cluster, and then the files.

    Returns true if the cluster was restored, and the problem. The restored template selects its former ReplicaSet. The
    order is cluster, files, record, messages, so that a failure of one step does not prevent a more important one.
    """
    undone, template = False, state.template
    try:
        for attempt in range(UNDO_TRIES if template is not None else 0):
            try:
                target.kubectl.undo(target.deployment, template or {})
                undone = True
                break
            except BentuneError as error:
                if attempt + 1 == UNDO_TRIES:
                    problem = f"{problem}; and it was not undone: {error}"
                else:
                    options.pause(UNDO_EVERY_S)
    finally:
        try:
            target.restore()
        finally:
            callbacks.undone(problem, judged)
    if undone:
        annotations = replace(state.annotations, under_way=None)
        # A release of the served version only restarted its pods: its failure is no reason to mark the version.
        if pin.content != (state.before.content if state.before else None):
            change = state.annotations.leaving if judged else state.annotations.interrupting
            annotations = change(pin.content)
        _try(options, lambda: _annotate(target, annotations), "the version is not annotated as undone")
    options.listener.say(f"[red]✗[/] {escape(problem)}")
    if undone:
        options.listener.say("undoing: the former pods return")
    return undone, problem


def _serves_again(target: ReleaseTarget, options: ReleaseOptions) -> bool:
    try:
        return watch_pods(target, options).state is RolloutState.COMPLETE
    except BentuneError as error:
        options.listener.say(f"the version that serves now is unknown: {escape(str(error))}")
        return False


def _handed_over(target: ReleaseTarget, outcome: ReleaseOutcome, options: ReleaseOptions) -> ReleaseOutcome:
    command = f"kubectl argo rollouts get rollout {target.rollout} --watch"
    options.listener.say(f"Argo Rollouts continues: {command}")
    return replace(outcome, applied=True)


def _arrived(target: ReleaseTarget, pin: Pin) -> bool:
    """Return true if the Deployment has the version although its apply failed."""
    try:
        now = read_snapshot(target.kubectl, target.deployment)
    except BentuneError:
        return False
    found = pin_of(now.deployment["spec"]["template"]) if now else None
    return found is not None and (found.content, found.image) == (pin.content, pin.image)


def _begun(pin: Pin, state: ClusterState) -> UnderWay:
    before = state.before
    return UnderWay(
        content=pin.content,
        image=pin.image,
        replica_set=state.replica_set,
        former=before.content if before else None,
        tag=before.tag if before else None,
    )


def _annotate(target: ReleaseTarget, annotations: Annotations) -> None:
    target.kubectl.patch("deployment", target.deployment, annotations.patch())


def _annotate_first(target: ReleaseTarget, pin: Pin, state: ClusterState, options: ReleaseOptions) -> None:
    """Mark a first release as under way.

    Before it was applied there was no Deployment to annotate.
    """
    _try(
        options,
        lambda: _annotate(target, Annotations(under_way=_begun(pin, state))),
        "the release is not annotated as under way",
    )


def _try(options: ReleaseOptions, step: Callable[[], None], otherwise: str) -> None:
    for attempt in range(UNDO_TRIES):
        try:
            return step()
        except BentuneError as error:
            if attempt + 1 == UNDO_TRIES:
                return options.listener.say(f"[yellow]{otherwise}: {escape(str(error))}[/]")
            options.pause(UNDO_EVERY_S)
    return None


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that an evicted pod first undoes its release."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
