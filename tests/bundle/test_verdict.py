"""The verdicts that count are those on this very content."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from bentune.bundle.verdict import VERDICTS, Decision, Difference, Judged, Verdict, verdicts_of


def verdict(decision: Decision, content: str) -> dict[str, Any]:
    return Verdict(
        decision=decision,
        reasons=["because"],
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        candidate=Judged(tag="pets:2", content=content),
        served=Judged(tag="pets:1", content="old"),
        rows=10,
        data_fingerprint="f",
        metric="accuracy",
        margin=0.01,
        confidence=0.95,
        difference=Difference(value=0.0, low=-0.005, high=0.005),
    ).model_dump(mode="json")


def test_the_newest_is_the_last() -> None:
    evidence = {VERDICTS: [verdict(Decision.HOLD, "new"), verdict(Decision.PROMOTE, "new")]}
    assert [one.decision for one in verdicts_of(evidence, "new")] == [Decision.HOLD, Decision.PROMOTE]


def test_one_on_another_content_does_not_count() -> None:
    evidence = {VERDICTS: [verdict(Decision.HOLD, "new"), verdict(Decision.PROMOTE, "other")]}
    assert [one.decision for one in verdicts_of(evidence, "new")] == [Decision.HOLD]
    assert verdicts_of({VERDICTS: [verdict(Decision.PROMOTE, "other")]}, "new") == []
    assert verdicts_of({}, "new") == []


@pytest.mark.parametrize("wrong", [5, {}, "PROMOTE", None, [5], [[]], [{}]])
def test_what_no_comparison_wrote(wrong: object) -> None:
    with pytest.raises(ValidationError):
        verdicts_of({VERDICTS: wrong}, "new")
