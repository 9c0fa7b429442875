"""Which verdict counts: the newest one against what serves, by the margin of the bundle's own recipe."""

from pathlib import Path

import pytest
from releasing import verdict_on, version, with_verdicts

from bentune.bundle.errors import BundleError, GateError
from bentune.bundle.manifest import Bundle
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
    from bentune.bundle.files import write_json
    from bentune.bundle.manifest import EVIDENCE, seal

    for wrong in (5, [5], {"decision": "PROMOTE"}):
        write_json(bundle.root / EVIDENCE, bundle.evidence() | {"verdicts": wrong})
        seal(bundle.root, bundle.manifest)
        with pytest.raises(BundleError, match="evidence.json"):
            word(bundle)
