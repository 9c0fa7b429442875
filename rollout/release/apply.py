"""Carries a version out: applies it, watches its pods, asks them, and takes it back whatever goes wrong."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from rich.markup import escape

from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import Bundle
from rollout.release.annotations import Marks, UnderWay
from rollout.release.check_pods import Proof
from rollout.release.state import Now
from rollout.release.target import Place, snapshot
from rollout.release.version_pin import Pin, pin_of
from rollout.release.watch import State, describe, new_pods
from rollout.release.watch_pods import Means, ask, follow, look_again

UNDO_TRIES, UNDO_EVERY_S = 5, 2.0


@dataclass(frozen=True)
class Outcome:
    """How a release or a rollback ended.

    `problem` is empty when the version serves; `undone` says that what was before serves again. `before` is what was
    served, if that is known; `pods` how many serve the version; `golden` the rows that were asked. `grounds` is what
    the verdict rests on.
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
class Hooks:
    """What is to be written down: when it is `applied`, and when it is `taken_back`, with whether it was judged."""

    applied: Callable[[], None] = lambda: None
    taken_back: Callable[[str, bool], None] = lambda _problem, _judged: None


def carry_out(place: Place, outcome: Outcome, bundle: Bundle | None, means: Means, now: Now, hooks: Hooks) -> Outcome:
    """Apply what was written, watch the pods, ask them; return to `now.template` when something is wrong.

    Whatever is raised in between, Ctrl-C and SIGTERM too, what served before is given back first.
    """
    try:
        if now.deployed and not place.rollout:
            _mark(place, replace(now.marks, under_way=_begun(outcome.pin, now)))
    except BaseException:
        place.restore()
        raise
    with _sigterm_as_exit():
        try:
            place.apply()
            if not now.deployed and not place.rollout:
                _first_mark(place, outcome.pin, now, means)
            hooks.applied()
            if place.rollout:
                return _handed_over(place, outcome, means)
            done = _judged(place, outcome, bundle, means)
        except BaseException as error:
            if not now.deployed and not place.rollout:
                _first_mark(place, outcome.pin, now, means)
            _take_back(place, now, means, hooks, outcome.pin, str(error) or type(error).__name__, judged=False)
            raise
        if not done.problem:
            _try(means, lambda: _mark(place, now.marks.without(done.pin.content)), "its marks were not taken away")
            return done
        if now.template is None:
            means.listener.say(
                "nothing ran before: it is left as it is, for you to look at; no pod that is not ready serves"
            )
            return done
        undone, problem = _take_back(place, now, means, hooks, done.pin, done.problem, judged=True)
        return replace(done, problem=problem, undone=undone and _serves_again(place, means))


def carry_back(place: Place, outcome: Outcome, bundle: Bundle | None, means: Means, now: Now, hooks: Hooks) -> Outcome:
    """The same for a rollback, which is never taken back: what it would return to is what somebody flees from."""
    problem = ""
    try:
        place.apply()
    except BaseException as error:
        if not _arrived(place, outcome.pin):
            place.restore()
            raise
        if not isinstance(error, BentuneError):
            hooks.applied()
            raise
        problem = f"applied in part: {error}"
    hooks.applied()
    gone = now.running
    marks = now.marks.without(outcome.pin.content)
    if gone is not None and gone.content != outcome.pin.content:
        marks = marks.leaving(gone.content)
    _try(means, lambda: _mark(place, marks), "what was left is not marked")
    if place.rollout:
        return replace(_handed_over(place, outcome, means), problem=problem)
    done = _judged(place, outcome, bundle, means)
    return replace(done, problem=problem or done.problem)


def _judged(place: Place, outcome: Outcome, bundle: Bundle | None, means: Means) -> Outcome:
    watch = follow(place, means)
    proof = Proof(watch.reason) if watch.reason else ask(place, outcome.pin, bundle, means)
    problem = proof.problem
    if not problem:
        # What turned ready may have fallen over when it was asked.
        pods = [describe(one) for one in new_pods(look_again(place, means))]
        problem = next((f"{pod.name} {pod.trouble}" for pod in pods if pod.trouble), "")
    if not problem and bundle is not None and proof.digest not in {None, bundle.digest}:
        means.listener.say(
            f"[yellow]the pods' digest is {escape(str(proof.digest)[:12])}, the store's {bundle.digest[:12]}[/]: "
            "the same model with other evidence; the image was built before the last `bentune compare`"
        )
    rows = len(bundle.golden) if bundle and not problem else 0
    return replace(outcome, applied=True, problem=problem, pods=len(watch.pods), golden=rows)


def _take_back(
    place: Place, now: Now, means: Means, hooks: Hooks, pin: Pin, problem: str, *, judged: bool
) -> tuple[bool, str]:
    """Whether the cluster has taken the former template, and what is wrong; the same finds the ReplicaSet of before.

    First of all this, then the files and the record, and words last: none of them keeps another from being done.
    """
    undone, template = False, now.template
    try:
        for again in range(UNDO_TRIES if template is not None else 0):
            try:
                place.kubectl.undo(place.deployment, template or {})
                undone = True
                break
            except BentuneError as error:
                if again + 1 == UNDO_TRIES:
                    problem = f"{problem}; and it was not undone: {error}"
                else:
                    means.pause(UNDO_EVERY_S)
    finally:
        try:
            place.restore()
        finally:
            hooks.taken_back(problem, judged)
    if undone:
        marks = replace(now.marks, under_way=None)
        # The same that served before was only given pods once more.
        if pin.content != (now.before.content if now.before else None):
            marks = now.marks.leaving(pin.content) if judged else now.marks.interrupting(pin.content)
        _try(means, lambda: _mark(place, marks), "it is not marked as taken back")
    means.listener.say(f"[red]✗[/] {escape(problem)}")
    if undone:
        means.listener.say("undoing: the pods of before come back")
    return undone, problem


def _serves_again(place: Place, means: Means) -> bool:
    try:
        return follow(place, means).state is State.COMPLETE
    except BentuneError as error:
        means.listener.say(f"what serves now is not known: {escape(str(error))}")
        return False


def _handed_over(place: Place, outcome: Outcome, means: Means) -> Outcome:
    means.listener.say(f"Argo Rollouts goes on by itself: kubectl argo rollouts get rollout {place.rollout} --watch")
    return replace(outcome, applied=True)


def _arrived(place: Place, pin: Pin) -> bool:
    """Whether the Deployment has the version, though what applied it says that it failed."""
    try:
        now = snapshot(place.kubectl, place.deployment)
    except BentuneError:
        return False
    found = pin_of(now.deployment["spec"]["template"]) if now else None
    return found is not None and (found.content, found.image) == (pin.content, pin.image)


def _begun(pin: Pin, now: Now) -> UnderWay:
    before = now.before
    return UnderWay(
        content=pin.content,
        image=pin.image,
        replica_set=now.replica_set,
        former=before.content if before else None,
        tag=before.tag if before else None,
    )


def _mark(place: Place, marks: Marks) -> None:
    place.kubectl.patch("deployment", place.deployment, marks.patch())


def _first_mark(place: Place, pin: Pin, now: Now, means: Means) -> None:
    """Before it was applied there was nothing to be marked."""
    _try(means, lambda: _mark(place, Marks(under_way=_begun(pin, now))), "it is not marked as unproven")


def _try(means: Means, step: Callable[[], None], otherwise: str) -> None:
    for again in range(UNDO_TRIES):
        try:
            return step()
        except BentuneError as error:
            if again + 1 == UNDO_TRIES:
                return means.listener.say(f"[yellow]{otherwise}: {escape(str(error))}[/]")
            means.pause(UNDO_EVERY_S)
    return None


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """A pod that is evicted gets a SIGTERM, which would end this process with the new version half out."""
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
