"""Whether a version may be released: its verdict decides, or somebody who says why."""

from rollout.overlay import Pin
from service.contract import Bundle
from service.errors import GateError, InputError
from service.verdict import Decision

REASON_CHARACTERS = 200


def may_release(bundle: Bundle, before: Pin | None, *, first: bool, force: bool, reason: str) -> str:
    """The word on the verdict that is written beside the version. Raises GateError when it must not be released.

    What is served already, `before`, and the `first` of all, have nothing to be compared with.
    """
    if force != bool(reason.strip()) or len(reason) > REASON_CHARACTERS or not (reason.isprintable()):
        raise InputError(
            f"--force and --reason belong together; a reason is one line of at most {REASON_CHARACTERS} characters"
        )
    verdict = bundle.verdict()
    word = verdict.decision.value if verdict else "none"
    if force:
        return f"{word}, forced"
    if before is not None and before.content == bundle.content:
        # Word for word as it is served, so that the same again changes nothing.
        return before.verdict or word
    if verdict is None:
        if first:
            return "none, the first version"
        raise GateError(
            "verdict",
            f"{bundle.tag} was not compared with what is served: `bentune compare {bundle.tag} SERVED --data ROWS` "
            "says whether it may be released; --force --reason TEXT releases it anyway",
        )
    if verdict.decision is not Decision.PROMOTE:
        raise GateError(
            "verdict",
            f"{bundle.tag} may not be released: {word}: {verdict.reasons[0]}; --force --reason TEXT does it anyway",
        )
    if before is not None and verdict.served.content != before.content:
        raise GateError(
            "verdict",
            f"{bundle.tag} was compared with {verdict.served.tag}, but {before.tag} is served: compare it with that, "
            "or --force --reason TEXT",
        )
    return word
