"""Gate of a release: the verdict on the version, or a reason to override it."""

from collections.abc import Collection

from pydantic import ValidationError

from bentune.bundle.errors import GateError, InputError
from bentune.bundle.manifest import Bundle
from bentune.bundle.verdict import CompareSettings, Decision
from bentune.quality.minimum import minimum_in
from bentune.quality.registry import quality_of
from rollout.release.version_pin import Pin

REASON_CHARACTERS = 200
ANYWAY = "--force --reason TEXT releases it anyway"


def may_release(
    bundle: Bundle, before: Pin | None, *, first: bool, force: bool, reason: str, left: Collection[str] = ()
) -> str:
    """Return the verdict in a word, to be written beside the version.

    Raises GateError when it, or the minimum of the recipe, forbids the release. A release of the served version
    `before` again, and the `first` one of all, need no verdict. `left` are the contents that were undone or rolled back
    from.
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
        # Exactly the served word, so that a second release of the same version changes nothing.
        return before.verdict or word
    if bundle.content in left:
        raise GateError(
            "verdict", f"{bundle.tag} was undone here, or rolled back from: release another version; {ANYWAY}"
        )
    require_minimum(bundle)
    if before is None and not first:
        raise GateError(
            "verdict",
            f"what is served was not released by Bentune, and no /info identified it, so no verdict on {bundle.tag} "
            f"can refer to it: give --url; {ANYWAY}",
        )
    if verdict is None:
        if first:
            _require_proof(bundle)
            return "none, the first version"
        other = f"compared with {verdicts[-1].served.tag}, but {before.tag} is served" if before and verdicts else ""
        raise GateError(
            "verdict",
            f"{bundle.tag} was {other or 'not compared with what is served'}: `bentune compare {bundle.tag} SERVED "
            f"--data ROWS` decides that; {ANYWAY}",
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


def _require_proof(bundle: Bundle) -> None:
    """Raise GateError where a constant answer would reach the minimum too, and the model is no better than it."""
    minimum = minimum_in(bundle.evidence().get("evaluation", {}))
    if minimum is not None and minimum.proves_nothing:
        said = minimum.against_constant(quality_of(bundle.manifest.target).words)
        raise GateError(
            "minimum", f"{bundle.tag} may not be released: a constant answer reaches its minimum, too: {said}; {ANYWAY}"
        )


def require_minimum(bundle: Bundle) -> None:
    """Raise GateError unless the bundle's evidence has a model that reached the minimum of its recipe.

    A verdict alone is not enough: a model may be no worse than a useless one.
    """
    minimum = minimum_in(bundle.evidence().get("evaluation", {}))
    if minimum is None:
        raise GateError(
            "minimum",
            f"the evidence of {bundle.tag} does not show that it is better than a constant answer: make it anew with "
            f"`bentune run`; {ANYWAY}",
        )
    if problem := minimum.problem(quality_of(bundle.manifest.target).words):
        raise GateError("minimum", f"{bundle.tag} may not be released: {problem}; {ANYWAY}")


def grounds(bundle: Bundle, before: Pin | None) -> str:
    """Summarize the candidate's comparison with `before`; empty without a verdict."""
    found = [one for one in bundle.verdicts() if before is not None and one.served.content == before.content]
    if not found:
        return ""
    looks = f", look {len(found)}: {', '.join(one.decision.value for one in found)}" if len(found) > 1 else ""
    return f"{found[-1].rows} rows, margin {found[-1].margin * 100:g} points{looks}"


def _margin(bundle: Bundle) -> float:
    """Return the margin of the bundle's own recipe, in points."""
    try:
        return CompareSettings.model_validate(bundle.recipe().get("compare", {})).margin
    except ValidationError:
        return CompareSettings().margin
