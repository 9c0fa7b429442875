"""Brings a version to a cluster, and returns to an earlier one: what is allowed, what is written, what is recorded."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from rich.markup import escape

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle
from bentune.bundle.store import find_bundle
from rollout.release.apply import Hooks, Outcome, carry_back, carry_out
from rollout.release.check_pods import require_url
from rollout.release.gate import grounds, may_release
from rollout.release.record import Action, Release, append, left, read, served
from rollout.release.state import Now, found, identified
from rollout.release.target import Place
from rollout.release.version_pin import Pin, pin_of
from rollout.release.watch_pods import Means


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
    began, now, word = means.clock(), *allowed(place, bundle, means, force=force, reason=reason, mode=mode)
    if now.first:
        means.listener.say(f"{place.deployment} is not deployed yet: the first version needs no verdict")
    again = now.before is not None and now.before.content == bundle.content
    why = reason or (now.before.forced if now.before and again else None)
    pin = Pin(bundle.tag, bundle.content, image, place.container, bundle.digest, word, why)
    outcome = replace(_written(place, pin, now, means, mode), grounds=grounds(bundle, now.before))
    if mode == "dry-run":
        return outcome
    if mode == "apply":

        def taken_back(problem: str, judged: bool) -> None:
            action = Action.UNDONE if judged else Action.INTERRUPTED
            _record(means, outcome, action, pin, problem)

        _settle(place, now, means)
        outcome = carry_out(place, outcome, bundle, means, now, Hooks(taken_back=taken_back))
    if not outcome.problem:
        _record(
            means, outcome, Action.HANDED_OVER if place.rollout and outcome.applied else Action.RELEASED, pin, reason
        )
    return replace(outcome, seconds=means.clock() - began)


def allowed(
    place: Place, bundle: Bundle, means: Means, *, force: bool = False, reason: str = "", mode: str = "apply"
) -> tuple[Now, str]:
    """What there is, and the word on the verdict that lets the bundle out. Raises as `release` does."""
    if means.url:
        require_url(means.url)
    now = identified(place, found(place, mode), means.url)
    gone = {*now.marks.left, *left(_read(means), now.where)}
    return now, may_release(bundle, now.before, first=now.first, force=force, reason=reason, left=gone)


def rollback(place: Place, means: Means, *, mode: str = "apply") -> Outcome:
    """Return to the last version that was released and not taken back, as `release` does.

    The record of releases says which; without one, the ReplicaSets that the cluster keeps. Raises InputError when
    there is none.
    """
    if means.url:
        require_url(means.url)
    began, now = means.clock(), found(place, mode)
    target, bundle = _earlier(place, means, now)
    outcome = replace(_written(place, target, now, means, mode), before=now.running)
    if mode == "dry-run":
        return outcome

    def note() -> None:
        # As soon as it is there: whatever comes of it, the next rollback goes on from here, and not back again.
        _record(means, outcome, Action.ROLLED_BACK, target, f"from {now.running.tag}" if now.running else "")

    if mode == "commit":
        note()
        return replace(outcome, seconds=means.clock() - began)
    done = carry_back(place, outcome, bundle, means, now, Hooks(applied=note))
    return replace(done, seconds=means.clock() - began)


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


def _settle(place: Place, now: Now, means: Means) -> None:
    """What was handed over to Argo Rollouts and serves by now was released."""
    lines = [one for one in _read(means) if one.where == now.where]
    if place.rollout and now.before and lines and lines[-1].action is Action.HANDED_OVER:
        last = lines[-1]
        if (last.content, last.image) == (now.before.content, now.before.image):
            append(last.model_copy(update={"at": datetime.now(UTC), "action": Action.RELEASED}), means.record)


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


def _read(means: Means) -> list[Release]:
    tell: Callable[[str], None] = lambda words: means.listener.say(f"[yellow]{escape(words)}[/]")  # noqa: E731
    return read(means.record, tell)


def _earlier(place: Place, means: Means, now: Now) -> tuple[Pin, Bundle | None]:
    """The version to return to, and its bundle where the store still has it."""
    running, lines = now.running, _read(means)
    never = {*now.marks.left, *now.marks.interrupted, *left(lines, now.where)}
    candidates = [Pin(one.tag, one.content, one.image, place.container) for one in reversed(served(lines, now.where))]
    if now.before is not None and running is not None and now.before.content != running.content:
        # What runs was never proven: back to what served.
        candidates.insert(0, now.before)
    here = (running.content, running.image) if running else None
    for pin in candidates:
        if (
            (pin.content, pin.image) != here
            and pin.image
            and (pin.content == _content(now) or pin.content not in never)
        ):
            return _with_bundle(pin)
    for pin in filter(None, map(pin_of, now.kept)):
        if pin.content not in never and pin.content != _content(now):
            return _with_bundle(pin)
    raise InputError(
        f"no earlier release of {now.where} is known, neither here nor to the cluster: `bentune release` one"
    )


def _content(now: Now) -> str | None:
    return now.running.content if now.running else None


def _with_bundle(pin: Pin) -> tuple[Pin, Bundle | None]:
    back = replace(pin, digest=None, verdict="rolled back to", forced=None)
    try:
        bundle = find_bundle(pin.tag)
    except InputError:
        return back, None
    # The store's may be another of the same name.
    return (replace(back, digest=bundle.digest), bundle) if bundle.content == pin.content else (back, None)
