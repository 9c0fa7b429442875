"""Which verdict counts: the newest one against what serves, by the margin of the bundle's own recipe."""

from pathlib import Path
from typing import Any

import pytest
from releasing import verdict_on, version, with_verdicts

from bentune.bundle.errors import BundleError, GateError
from bentune.bundle.files import write_json
from bentune.bundle.manifest import EVIDENCE, Bundle, open_bundle, seal
from bentune.bundle.verdict import Decision
from rollout.release.gate import grounds, may_release
from rollout.release.version_pin import Pin

SERVED = "5" * 64
BEFORE = Pin("news:1", SERVED, "image:1")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return version(tiny_bundle, tmp_path, "candidate")


def word(bundle: Bundle, before: Pin | None = BEFORE, *, first: bool = False, left: tuple[str, ...] = ()) -> str:
    return may_release(bundle, before, first=first, force=False, reason="", left=left)


def test_the_newest_against_what_serves_counts_whatever_came_later_against_another(bundle: Bundle) -> None:
    promoted = verdict_on(bundle, served=SERVED)
    other = verdict_on(bundle, Decision.HOLD, served="6" * 64, tag="else:1")
    held = verdict_on(bundle, Decision.HOLD, served=SERVED)
    assert word(with_verdicts(bundle, [promoted, other])) == "PROMOTE"
    with pytest.raises(GateError, match="may not be released: HOLD"):
        word(with_verdicts(bundle, [promoted, held, other]))
    with pytest.raises(GateError, match="was compared with else:1, but news:1 is served"):
        word(with_verdicts(bundle, [other]))
    looked = with_verdicts(bundle, [held, other, promoted])
    assert word(looked) == "PROMOTE"
    assert grounds(looked, BEFORE) == "100 rows, margin 1 points, look 2: HOLD, PROMOTE"
    assert grounds(looked, None) == ""


def test_a_margin_wider_than_the_recipes_is_none(bundle: Bundle) -> None:
    wide = with_verdicts(bundle, [verdict_on(bundle, served=SERVED, margin=0.5)])
    with pytest.raises(GateError, match=r"by a margin of 50 points, but its recipe allows 1 \(compare.margin\)"):
        word(wide)
    assert may_release(wide, BEFORE, first=False, force=True, reason="yes") == "PROMOTE, forced"
    assert word(with_verdicts(bundle, [verdict_on(bundle, served=SERVED, margin=0.005)])) == "PROMOTE"


def test_what_is_served_and_unknown_lets_nothing_out(bundle: Bundle) -> None:
    promoted = with_verdicts(bundle, [verdict_on(bundle, served=SERVED)])
    with pytest.raises(GateError, match="was not released by Bentune, and no /info identified it"):
        word(promoted, None)
    assert word(promoted, None, first=True) == "PROMOTE"
    with pytest.raises(GateError, match="was undone here"):
        word(promoted, left=(bundle.content,))


def test_what_no_comparison_wrote_is_an_error(bundle: Bundle) -> None:
    for wrong in (5, [5], {"decision": "PROMOTE"}):
        write_json(bundle.root / EVIDENCE, bundle.evidence() | {"verdicts": wrong})
        seal(bundle.root, bundle.manifest)
        with pytest.raises(BundleError, match="evidence.json"):
            word(bundle)


def with_minimum(bundle: Bundle, evaluation: dict[str, Any]) -> Bundle:
    write_json(bundle.root / EVIDENCE, bundle.evidence() | {"evaluation": evaluation})
    seal(bundle.root, bundle.manifest)
    return open_bundle(bundle.root)


def test_a_useless_model_is_not_released_neither_first_nor_with_a_verdict(bundle: Bundle) -> None:
    known = bundle.evidence()["evaluation"]
    gain = {"value": -0.3, "low": -0.4, "high": -0.2}
    useless = with_minimum(bundle, known | {"minimum": known["minimum"] | {"gain": gain}})
    for before, first in ((None, True), (BEFORE, False)):
        promoted = with_verdicts(useless, [verdict_on(useless, served=SERVED)])
        with pytest.raises(GateError, match=r"not shown to be better than a constant answer.*-30\.0 points"):
            word(promoted, before, first=first)
    assert may_release(useless, None, first=True, force=True, reason="a trial") == "PROMOTE, forced"
    bound = {"metric": "macro_f1", "bound": 0.9, "found": 0.85, "reached": False}
    with pytest.raises(GateError, match="macro_f1 is only known to be 0.85, and evaluate.minimum is 0.9"):
        word(with_minimum(bundle, known | {"minimum": known["minimum"] | {"bounds": [bound]}}), None, first=True)


def test_evidence_without_a_minimum_is_read_from_the_recall_of_each_label_or_refused(bundle: Bundle) -> None:
    def tuned(recall: float) -> dict[str, Any]:
        labels = {label: {"support": 20, "recall": {"value": recall}} for label in ("animal", "food", "tool")}
        return {"tuned": {"per_class": labels, "confidence": 0.95}}

    assert word(with_minimum(bundle, tuned(0.8)), None, first=True) == "none, the first version"
    with pytest.raises(GateError, match="not shown to be better than a constant answer: against .* 'animal'"):
        word(with_minimum(bundle, tuned(0.3)), None, first=True)
    with pytest.raises(GateError, match="does not show that it is better than a constant answer: make it anew"):
        word(with_minimum(bundle, {"tuned": {"accuracy": {"value": 0.9}}}), None, first=True)


def test_a_bound_that_a_constant_answer_reaches_lets_no_first_version_out(bundle: Bundle) -> None:
    known = bundle.evidence()["evaluation"]
    gain = {"value": 0.0, "low": -0.1, "high": 0.1}
    bound = {"metric": "accuracy", "bound": 0.0, "found": 0.3, "reached": True, "reached_by_constant": True}
    useless = with_minimum(bundle, known | {"minimum": known["minimum"] | {"gain": gain, "bounds": [bound]}})
    with pytest.raises(GateError, match="a constant answer reaches its minimum, too: against the constant"):
        word(useless, None, first=True)
    macro = bound | {"metric": "macro_f1", "bound": 0.6, "found": 0.7, "reached_by_constant": False}
    useful = with_minimum(bundle, known | {"minimum": known["minimum"] | {"gain": gain, "bounds": [macro]}})
    assert word(useful, None, first=True) == "none, the first version"
