"""The verdict that counts is the newest one on this very content."""

from datetime import UTC, datetime
from typing import Any

from service.verdict import VERDICTS, Decision, Difference, Judged, Verdict, verdict_of


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


def test_the_newest_counts() -> None:
    evidence = {VERDICTS: [verdict(Decision.HOLD, "new"), verdict(Decision.PROMOTE, "new")]}
    found = verdict_of(evidence, "new")
    assert found is not None
    assert found.decision is Decision.PROMOTE


def test_one_on_another_content_does_not() -> None:
    evidence = {VERDICTS: [verdict(Decision.HOLD, "new"), verdict(Decision.PROMOTE, "other")]}
    found = verdict_of(evidence, "new")
    assert found is not None
    assert found.decision is Decision.HOLD
    assert verdict_of({VERDICTS: [verdict(Decision.PROMOTE, "other")]}, "new") is None
    assert verdict_of({}, "new") is None
