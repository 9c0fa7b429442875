"""Release of a version to a cluster, and rollback to an earlier one."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from rich.markup import escape

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle
from bentune.bundle.store import find_bundle
from rollout.release.apply import Callbacks, ReleaseOutcome, apply_release, apply_rollback
from rollout.release.check_pods import require_url
from rollout.release.gate import grounds, may_release
from rollout.release.options import ReleaseOptions
from rollout.release.record import Action, Release, append, left, read, served
from rollout.release.state import ClusterState, identify, inspect
from rollout.release.target import ReleaseTarget
from rollout.release.version_pin import Pin, pin_of


def release(
    target: ReleaseTarget,
    bundle: Bundle,
    image: str,
    options: ReleaseOptions,
    *,
    state: ClusterState | None = None,
    force: bool = False,
    reason: str = "",
    mode: str = "apply",
) -> ReleaseOutcome:
    """Release `bundle` in `image`: write, apply and check it; undo it after a problem.

    `state` is what `read_state` returned for this target; without it, it is read here. `mode` is "apply", "dry-run"
    (nothing is changed), or "commit" (only the overlay is written). Raises GateError when the verdict forbids the
    release, InputError and BentuneError; a problem of the pods is in the outcome.
    """
    began, state = options.clock(), state or read_state(target, options, mode)
    verdict = require_allowed(bundle, state, options, force=force, reason=reason)
    if state.first:
        options.listener.say(f"{target.deployment} is not deployed yet: the first version needs no verdict")
    again = state.before is not None and state.before.content == bundle.content
    why = reason or (state.before.forced if state.before and again else None)
    pin = Pin(bundle.tag, bundle.content, image, target.container, bundle.digest, verdict, why)
    outcome = replace(_written(target, pin, state, options, mode), grounds=grounds(bundle, state.before))
    if mode == "dry-run":
        return outcome
    if mode == "apply":

        def undone(problem: str, judged: bool) -> None:
            action = Action.UNDONE if judged else Action.INTERRUPTED
            _record(options, outcome, action, pin, problem)

        _settle(target, state, options)
        outcome = apply_release(target, outcome, bundle, options, state, Callbacks(undone=undone))
    if not outcome.problem:
        action = Action.HANDED_OVER if target.rollout and outcome.applied else Action.RELEASED
        _record(options, outcome, action, pin, reason)
    return replace(outcome, seconds=options.clock() - began)


def read_state(target: ReleaseTarget, options: ReleaseOptions, mode: str = "apply") -> ClusterState:
    """Read the state of the cluster that a release needs.

    Raises InputError and BentuneError.
    """
    if options.url:
        require_url(options.url)
    return identify(target, inspect(target, mode), options.url)


def require_allowed(
    bundle: Bundle, state: ClusterState, options: ReleaseOptions, *, force: bool = False, reason: str = ""
) -> str:
    """Return the verdict that allows the release, in a word.

    Raises GateError when no verdict does, and InputError for an invalid `force` or `reason`.
    """
    gone = {*state.annotations.left, *left(_read(options), state.where)}
    return may_release(bundle, state.before, first=state.first, force=force, reason=reason, left=gone)


def rollback(target: ReleaseTarget, options: ReleaseOptions, *, mode: str = "apply") -> ReleaseOutcome:
    """Return to the last version that was released and not undone, as `release` does.

    The version comes from the record of releases, or without a record from the ReplicaSets that the cluster keeps.
    Raises InputError when there is none.
    """
    if options.url:
        require_url(options.url)
    began, state = options.clock(), inspect(target, mode)
    pin, bundle = _earlier(target, options, state)
    outcome = replace(_written(target, pin, state, options, mode), before=state.running)
    if mode == "dry-run":
        return outcome

    def note() -> None:
        # Right after the apply: the next rollback continues from here, even if this one fails.
        _record(options, outcome, Action.ROLLED_BACK, pin, f"from {state.running.tag}" if state.running else "")

    if mode == "commit":
        note()
        return replace(outcome, seconds=options.clock() - began)
    done = apply_rollback(target, outcome, bundle, options, state, Callbacks(applied=note))
    return replace(done, seconds=options.clock() - began)


def _written(
    target: ReleaseTarget, pin: Pin, state: ClusterState, options: ReleaseOptions, mode: str
) -> ReleaseOutcome:
    diff = target.write(pin)
    options.listener.diff(diff)
    if mode == "dry-run":
        try:
            changes = target.differs() if state.live else None
        finally:
            target.restore()
        if changes:
            options.listener.say("changes of the cluster, by `kubectl diff`:")
            options.listener.diff(changes)
    return ReleaseOutcome(pin, state.where, state.before, diff, applied=False)


def _settle(target: ReleaseTarget, state: ClusterState, options: ReleaseOptions) -> None:
    """Record as released a version handed over to Argo Rollouts that serves by now."""
    lines = [one for one in _read(options) if one.where == state.where]
    if target.rollout and state.before and lines and lines[-1].action is Action.HANDED_OVER:
        last = lines[-1]
        if (last.content, last.image) == (state.before.content, state.before.image):
            append(last.model_copy(update={"at": datetime.now(UTC), "action": Action.RELEASED}), options.record)


def _record(options: ReleaseOptions, outcome: ReleaseOutcome, action: Action, pin: Pin, reason: str) -> None:
    line = Release(
        at=datetime.now(UTC),
        tag=pin.tag,
        content=pin.content,
        where=outcome.where,
        action=action,
        image=pin.image,
        reason=reason,
    )
    append(line, options.record)


def _read(options: ReleaseOptions) -> list[Release]:
    tell: Callable[[str], None] = lambda words: options.listener.say(f"[yellow]{escape(words)}[/]")  # noqa: E731
    return read(options.record, tell)


def _earlier(target: ReleaseTarget, options: ReleaseOptions, state: ClusterState) -> tuple[Pin, Bundle | None]:
    """Return the version to roll back to, and its bundle if the store still has it.

    Raises InputError.
    """
    running, lines = state.running, _read(options)
    never = {*state.annotations.left, *state.annotations.interrupted, *left(lines, state.where)}
    former = reversed(served(lines, state.where))
    candidates = [Pin(one.tag, one.content, one.image, target.container) for one in former]
    if state.before is not None and running is not None and state.before.content != running.content:
        # The running version was never proven: the one that served before it is next.
        candidates.insert(0, state.before)
    here = (running.content, running.image) if running else None
    for pin in candidates:
        if (
            (pin.content, pin.image) != here
            and pin.image
            and (pin.content == _content(state) or pin.content not in never)
        ):
            return _with_bundle(pin)
    for pin in filter(None, map(pin_of, state.kept)):
        if pin.content not in never and pin.content != _content(state):
            return _with_bundle(pin)
    raise InputError(
        f"no earlier release of {state.where} is known, neither here nor to the cluster: `bentune release` one"
    )


def _content(state: ClusterState) -> str | None:
    return state.running.content if state.running else None


def _with_bundle(pin: Pin) -> tuple[Pin, Bundle | None]:
    back = replace(pin, digest=None, verdict="rolled back to", forced=None)
    try:
        bundle = find_bundle(pin.tag)
    except InputError:
        return back, None
    # The store may have another bundle of the same tag.
    return (replace(back, digest=bundle.digest), bundle) if bundle.content == pin.content else (back, None)
