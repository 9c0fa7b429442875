"""A comparison of two versions, made up: every kind of finding once."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bentune.bundle.files import write_json
from bentune.bundle.store import find_bundle
from bentune.bundle.verdict import CompareSettings, Decision, Difference, Judged, Verdict
from bentune.quality.one_label import OneLabelQuality
from bentune.quality.quality import Metric, PairedTest
from bentune.quality.slices import SliceDifference
from bentune.quality.statistics.calibration import Bin
from rollout.compare.decision import Comparison, Flip, Flips, LeftOut, SideReport
from rollout.compare.latency import Ratio, Speed

NASTY = "<script>alert('x')</script>"
LOSS = Difference(value=-0.02, low=-0.05, high=0.01)


def comparison(**verdict: Any) -> Comparison:
    """Return a comparison whose verdict has these values in place of made-up ones.

    NASTY is the value of a slice.
    """
    candidate, served = Judged(tag="pets:2", content="2"), Judged(tag="pets:1", content="1", address="http://old:3000")
    bins = [Bin(low=0, high=0.5, rows=0, confidence=None, accuracy=None)]
    bins.append(Bin(low=0.5, high=1, rows=40, confidence=0.9, accuracy=0.85))

    def side(judged: Judged, size: int | None) -> SideReport:
        speed = Speed(texts_per_s=50, p50_ms=10, p95_ms=20)
        return SideReport(
            judged=judged,
            variant="fp32",
            provider="CPUExecutionProvider",
            size_bytes=size,
            reliability=bins,
            speed=speed,
        )

    none = Difference(value=0, low=0, high=0)
    part = SliceDifference(
        by="set",
        value=NASTY,
        rows=40,
        gained=1,
        lost=2,
        difference=LOSS,
        others={"macro_f1": none, "log_loss": none},
        worse_p=0.4,
        margin_p=0.6,
        non_inferior=False,
        vetoes=True,
    )
    flip = Flip(row=7, label="cat", candidate="dog", candidate_confidence=0.93, served="cat", served_confidence=0.6)
    one = Ratio(value=1, low=0.9, high=1.1, pairs=9)
    return Comparison(
        verdict=Verdict(
            decision=Decision.NEED_MORE_ROWS,
            reasons=["needs 1,240 rows in all"],
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            candidate=candidate,
            served=served,
            rows=40,
            data_fingerprint="f",
            metric="accuracy",
            margin=0.01,
            confidence=0.9,
            difference=LOSS,
            rows_needed=1240,
            earlier=2,
        ).model_copy(update=verdict),
        settings=CompareSettings(),
        metrics=[
            Metric(name="accuracy", candidate=0.9, served=0.92, difference=LOSS, higher_is_better=True, share=True),
            Metric(name="log loss", candidate=0.3, served=0.25, difference=none, higher_is_better=False),
        ],
        test=PairedTest(name="McNemar's exact p", gained=1, lost=2, p_value=1.0),
        words=OneLabelQuality.words,
        slices=[part],
        candidate=side(candidate, 90_000_000),
        served=side(served, None),
        latency=one,
        throughput=one,
        judged_speed=False,
        size=None,
        flips=Flips(gained=0, lost=1, both_wrong=3, gained_examples=[], lost_examples=[flip]),
        left_out=LeftOut(copies=2, trained=3, filters=["a: takes one in 9 new rows"], trusted=["the served model"]),
    )


def stand_in(decision: Decision, calls: list[Any]) -> SimpleNamespace:
    """Return a stand-in for rollout.compare.compare that decides `decision`.

    It appends the arguments of each call to `calls`, with the rows of the data.
    """

    def compare(candidate: str, served: str, data: Path, **options: Any) -> Any:
        rows = [json.loads(line) for line in data.read_text().splitlines()]
        calls.append((candidate, served, rows, options))
        judged = [Judged(tag=tag, content=find_bundle(tag).content) for tag in (candidate, served)]
        found = comparison(
            decision=decision,
            reasons=[f"it is {decision}"],
            candidate=judged[0],
            served=judged[1],
            rows=len(rows),
            rows_needed=900 if decision is Decision.NEED_MORE_ROWS else None,
        )
        options["out"].mkdir(exist_ok=True)
        write_json(options["out"] / "comparison.json", found)
        return found

    return SimpleNamespace(compare=compare, require_extra=lambda: None)


def promote() -> None:
    """Have this process's comparisons decide PROMOTE."""
    sys.modules["rollout.compare.compare"] = stand_in(Decision.PROMOTE, [])  # type: ignore[assignment]
