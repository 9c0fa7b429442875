"""Whether a version may be released: its verdict decides, or somebody who says why."""

from collections.abc import Collection

from pydantic import ValidationError

from bentune.bundle.errors import GateError, InputError
from bentune.bundle.manifest import Bundle
from bentune.bundle.verdict import CompareSettings, Decision
from rollout.release.version_pin import Pin

REASON_CHARACTERS = 200
ANYWAY = "--force --reason TEXT releases it anyway"


def may_release(
    bundle: Bundle, before: Pin | None, *, first: bool, force: bool, reason: str, left: Collection[str] = ()
) -> str:
    """The word on the verdict that is written beside the version. Raises GateError when it must not be released.

    What is served already, `before`, and the `first` of all, have nothing to be compared with. `left` are the contents
    that were taken back here, or fled from.
    """
    if force != bool(reason.strip()) or len(reason) > REASON_CHARACTERS or not (reason.isprintable()):
        raise InputError(
            f"--force and --reason belong together; a reason is one line of at most {REASON_CHARACTERS} characters"
        )
    verdicts = bundle.verdicts()
    counting = [one for one in verdicts if before is None or one.served.content == before.content]
    verdict = counting[-1] if counting else None
    word = verdict.decision.value if verdict else "none"
    if force:
        return f"{word}, forced"
    if before is not None and before.content == bundle.content:
        # Word for word as it is served, so that the same again changes nothing.
        return before.verdict or word
    if bundle.content in left:
        raise GateError(
            "verdict", f"{bundle.tag} was taken back here, or left by a rollback: release another; {ANYWAY}"
        )
    if before is None and not first:
        raise GateError(
            "verdict",
            f"what is served was not released by Bentune, and no /info said which it is, so no verdict on {bundle.tag} "
            f"can be known to be about it: give --url; {ANYWAY}",
        )
    if verdict is None:
        if first:
            return "none, the first version"
        other = f"compared with {verdicts[-1].served.tag}, but {before.tag} is served" if before and verdicts else ""
        raise GateError(
            "verdict",
            f"{bundle.tag} was {other or 'not compared with what is served'}: `bentune compare {bundle.tag} SERVED "
            f"--data ROWS` says whether it may be released; {ANYWAY}",
        )
    if verdict.decision is not Decision.PROMOTE:
        raise GateError("verdict", f"{bundle.tag} may not be released: {word}: {verdict.reasons[0]}; {ANYWAY}")
    margin = _margin(bundle)
    if verdict.margin * 100 > margin * (1 + 1e-9):
        raise GateError(
            "verdict",
            f"{bundle.tag} was promoted by a margin of {verdict.margin * 100:g} points, but its recipe allows "
            f"{margin:g} (compare.margin): compare it again without --margin; {ANYWAY}",
        )
    return word


def grounds(bundle: Bundle, before: Pin | None) -> str:
    """What the verdict on the candidate against `before` rests on, for people; empty without one."""
    found = [one for one in bundle.verdicts() if before is not None and one.served.content == before.content]
    if not found:
        return ""
    looks = f", look {len(found)}: {', '.join(one.decision.value for one in found)}" if len(found) > 1 else ""
    return f"{found[-1].rows} rows, margin {found[-1].margin * 100:g} points{looks}"


def _margin(bundle: Bundle) -> float:
    """The points that the bundle's own recipe allows to lose."""
    try:
        return CompareSettings.model_validate(bundle.recipe().get("compare", {})).margin
    except ValidationError:
        return CompareSettings().margin
