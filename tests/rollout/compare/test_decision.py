"""The decision follows from the numbers, and says so in plain words."""

import numpy as np
import pytest

from bentune.bundle.verdict import CompareSettings, Decision, Difference
from bentune.quality.one_label import OneLabelQuality, Proportions
from bentune.quality.slices import SliceDifference
from rollout.compare.decision import decide
from rollout.compare.latency import Ratio

SETTINGS = CompareSettings()
WORDS = OneLabelQuality.words
SAME_SPEED = Ratio(value=1.02, low=0.9, high=1.2, pairs=100)


def slice_of(*, vetoes: bool) -> SliceDifference:
    none = Difference(value=0, low=0, high=0)
    return SliceDifference(
        by="label",
        value="sport",
        rows=80,
        gained=0,
        lost=9,
        difference=Difference(value=-0.1125, low=-0.19, high=-0.06),
        others={"macro_f1": none, "log_loss": none},
        worse_p=0.004,
        margin_p=1,
        non_inferior=False,
        vetoes=vetoes,
    )


def judge(
    gained: int,
    lost: int,
    rows: int,
    *,
    vetoes: bool = False,
    latency: Ratio | None = SAME_SPEED,
    settings: CompareSettings = SETTINGS,
) -> tuple[Decision, str, int | None]:
    contest = Proportions(gained, lost, rows)
    decision, reasons, needed = decide(contest, WORDS, [slice_of(vetoes=vetoes)], latency, settings)
    return decision, "\n".join(reasons), needed


def test_promote_when_the_margin_is_ruled_out() -> None:
    decision, said, needed = judge(20, 18, 3000)
    assert (decision, needed) == (Decision.PROMOTE, None)
    assert (
        "accuracy changed by +0.07 points, at worst by -0.30 (95% limit): a loss of 1 point or more is ruled out"
        in said
    )
    assert "none of 1 slices is significantly worse by more than the margin" in said
    assert "1.02 times that of what is served (1.5 allowed)" in said


def test_a_loss_beyond_the_margin_for_sure_is_called_certain() -> None:
    decision, said, _ = judge(2, 60, 400)
    assert decision is Decision.HOLD
    assert "a loss of 1 point or more is certain" in said


def test_need_more_rows_says_how_many() -> None:
    decision, said, needed = judge(4, 4, 200)
    assert decision is Decision.NEED_MORE_ROWS
    assert needed is not None
    assert 3450 < needed < 3750
    assert f"needs {needed:,} rows in all, and here are 200" in said
    assert "is not ruled out" in said
    assert "in 8 rows (4.0%)" in said
    # With so many rows and as much disagreement, it is not asked for more.
    assert judge(needed // 50, needed // 50, needed)[0] is Decision.PROMOTE


def test_hold_when_it_is_worse_for_sure() -> None:
    decision, said, needed = judge(2, 30, 500)
    assert (decision, needed) == (Decision.HOLD, None)
    assert "it alone is wrong in 30 rows, the served model alone in 2 (McNemar's exact p < 0.0001)" in said


def test_few_rows_that_are_worse_by_chance_are_not_the_end() -> None:
    assert judge(0, 2, 20)[0] is Decision.NEED_MORE_ROWS


def test_hold_when_an_equally_good_one_would_have_passed() -> None:
    decision, said, needed = judge(20, 60, 9000)
    assert decision is Decision.PROMOTE  # worse for sure, but by less than the margin
    decision, said, needed = judge(120, 190, 9000)
    assert (decision, needed) == (Decision.HOLD, None)
    assert "more rows do not help" in said
    assert "here are 9,000" in said


def test_the_worst_of_many_slices_are_named() -> None:
    slices = [slice_of(vetoes=True).model_copy(update={"value": f"s{n}"}) for n in range(5)]
    _, reasons, _ = decide(Proportions(0, 0, 3000), WORDS, slices, None, SETTINGS)
    assert sum("worse where" in reason for reason in reasons) == 3
    assert reasons[-1] == "2 more of the 5 slices are worse"


def test_a_slice_vetoes() -> None:
    decision, said, _ = judge(20, 18, 3000, vetoes=True)
    assert decision is Decision.HOLD
    assert "worse where label is sport: by -11.25 points in 80 rows (9 lost, 0 gained; exact p = 0.004" in said


def test_a_frozen_slice_vetoes_and_is_called_that() -> None:
    one = slice_of(vetoes=True).model_copy(update={"by": "set", "value": "reference", "frozen": True})
    decision, reasons, _ = decide(Proportions(0, 0, 3000), WORDS, [one], None, SETTINGS)
    assert decision is Decision.HOLD
    assert reasons[-1].startswith("frozen and worse where set is reference: by -11.25 points in 80 rows (9 lost")


@pytest.mark.parametrize(
    ("latency", "decision"),
    [
        (Ratio(value=1.7, low=1.4, high=2.0, pairs=50), Decision.PROMOTE),
        (Ratio(value=1.7, low=1.6, high=1.8, pairs=50), Decision.HOLD),
        (Ratio(value=1.7, low=1.6, high=1.8, pairs=4), Decision.PROMOTE),
        (None, Decision.PROMOTE),
    ],
)
def test_only_what_is_slower_for_sure_is_held(latency: Ratio | None, decision: Decision) -> None:
    found, said, _ = judge(20, 18, 3000, latency=latency)
    assert found is decision
    if latency is None:
        assert "not judged, as one side is a service" in said
    if found is Decision.HOLD:
        assert "its latency is 1.70 times that of what is served, at best 1.60, and 1.5 times are allowed" in said


def test_the_margin_is_the_settings() -> None:
    assert judge(4, 4, 200, settings=CompareSettings(margin=5))[0] is Decision.PROMOTE
    assert "a loss of 5 points or more is ruled out" in judge(4, 4, 200, settings=CompareSettings(margin=5))[1]


def promoted(gained: int, lost: int, rows: int) -> bool:
    return judge(gained, lost, rows)[0] is Decision.PROMOTE


def test_of_a_thousand_that_lose_just_the_margin_at_most_five_percent_are_promoted() -> None:
    rng = np.random.default_rng(11)
    counts = rng.multinomial(1500, [0.02, 0.03, 0.95], size=1000)
    share = np.mean([promoted(int(gained), int(lost), 1500) for gained, lost, _ in counts])
    assert share <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_of_a_thousand_that_are_equally_good_four_in_five_are_with_the_rows_asked_for() -> None:
    rng = np.random.default_rng(12)
    end = []
    for gained, lost, _ in rng.multinomial(200, [0.02, 0.02, 0.96], size=1000):
        decision, _, needed = judge(int(gained), int(lost), 200)
        if needed is None:  # promoted or held at once
            end.append(decision is Decision.PROMOTE)
            continue
        again = rng.multinomial(needed, [0.02, 0.02, 0.96])
        end.append(promoted(int(again[0]), int(again[1]), needed))
    assert np.mean(end) >= 0.8
