"""The way back, between versions that are not the same: never to what was undone or fled from."""

from typing import Any

import pytest
from releasing import image_of, serves

from bentune.bundle.errors import BentuneError, GateError, InputError
from rollout.release.kubectl import Kubectl
from rollout.release.record import Action, read


def annotations(releasing: Any) -> dict[str, str]:
    found: dict[str, str] = releasing.cluster.of("Deployment")[0]["metadata"]["annotations"]
    return found


@pytest.mark.parametrize("record", [True, False])
def test_it_never_goes_to_what_was_undone(releasing: Any, record: bool) -> None:
    first = releasing.version("1")
    bad = releasing.version("2", first)
    assert releasing.release(first).problem == ""
    releasing.cluster.fate = lambda image: "restarts" if image == image_of(bad) else "ready"
    assert releasing.release(bad).undone
    assert serves(releasing.cluster) == {image_of(first)}
    assert annotations(releasing)["bentune/left"] == bad.content
    assert annotations(releasing)["bentune/under-way"] == ""
    # It would do now; but it is not what somebody wants who goes back.
    releasing.cluster.fate = lambda image: "ready"
    if not record:
        releasing.options.record.unlink()
    with pytest.raises(InputError, match="no earlier release"):
        releasing.rollback()
    assert serves(releasing.cluster) == {image_of(first)}
    # Nor is it released again by a machine that has seen nothing of it.
    with pytest.raises(GateError, match="was undone here, or rolled back from"):
        releasing.release(bad)
    assert releasing.release(bad, force=True, reason="a node was ill").problem == ""
    assert annotations(releasing)["bentune/left"] == ""
    assert releasing.rollback().pin.content == first.content


@pytest.mark.parametrize("record", [True, False])
def test_a_second_one_goes_further_back_and_then_nowhere(releasing: Any, record: bool) -> None:
    first = releasing.version("1")
    second = releasing.version("2", first)
    third = releasing.version("3", second)
    for one in (first, second, third):
        assert releasing.release(one).problem == ""
        assert serves(releasing.cluster) == {image_of(one)}
    for one in (second, first):
        if not record:
            releasing.options.record.unlink()
        outcome = releasing.rollback()
        assert (outcome.problem, outcome.pin.content) == ("", one.content)
        assert serves(releasing.cluster) == {image_of(one)}
    if not record:
        releasing.options.record.unlink()
    with pytest.raises(InputError, match="no earlier release"):
        releasing.rollback()
    assert annotations(releasing)["bentune/left"].split() == [third.content, second.content]
    with pytest.raises(GateError, match="rolled back from"):
        releasing.release(second)


def test_one_that_ends_with_a_problem_is_recorded_nevertheless(releasing: Any) -> None:
    first = releasing.version("1")
    second = releasing.version("2", first)
    assert releasing.release(first).problem == ""
    assert releasing.release(second).problem == ""
    releasing.behind.ill.add(image_of(first))
    releasing.behind.versions[image_of(first)] = None
    outcome = releasing.rollback()
    assert "does not serve the version" in outcome.problem
    assert serves(releasing.cluster) == {image_of(first)}
    assert read(releasing.options.record)[-1].action is Action.ROLLED_BACK
    with pytest.raises(InputError, match="no earlier release"):
        releasing.rollback()


def test_one_that_was_applied_in_part_has_arrived(releasing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = releasing.version("1")
    second = releasing.version("2", first)
    assert releasing.release(first).problem == ""
    assert releasing.release(second).problem == ""
    apply = Kubectl.apply

    def in_part(self: Kubectl, overlay: Any) -> list[str]:
        apply(self, overlay)
        raise BentuneError("no matches for kind ServiceMonitor")

    monkeypatch.setattr(Kubectl, "apply", in_part)
    outcome = releasing.rollback()
    assert outcome.problem == "applied in part: no matches for kind ServiceMonitor"
    assert serves(releasing.cluster) == {image_of(first)}
    assert releasing.target().pinned().content == first.content
    assert read(releasing.options.record)[-1].action is Action.ROLLED_BACK
