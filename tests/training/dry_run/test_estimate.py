"""Estimate of all steps from a few of them."""

from typing import Any

import pytest

from training.dry_run.estimate import Phase, Rehearsal, Timed, estimate


def phase(**values: Any) -> Phase:
    """Two groups of steps: short ones at 0.01 s a token, long ones at 0.02 s."""
    given: dict[str, Any] = {
        "name": "training",
        "steps": 100,
        "done": 0,
        "left": [1000, 5000, 0, 0, 0],
        "timed": [Timed(0, 10, 0.1), Timed(1, 50, 1.0), Timed(0, 20, 0.2), Timed(1, 25, 0.5)],
        "evaluations": 4,
        "evaluation_seconds": 3.0,
        "saves": 6,
        "save_seconds": 0.5,
        "checkpoint_bytes": 10_000_000,
    }
    return Phase(**given | values)


def rehearsal(*phases: Phase, **values: Any) -> Rehearsal:
    given: dict[str, Any] = {
        "rows": 800,
        "start_seconds": 7.0,
        "phases": list(phases),
        "save_seconds": 1.0,
        "saved_bytes": 5_000_000,
        "tokens_bytes": 0,
        "held_bytes": 0,
        "model_bytes": 40_000_000,
        "peak_bytes": 900_000_000,
        "gpu_peak_bytes": None,
        "taken": 0.0,
        "said": [],
    }
    return Rehearsal(**given | values)


def test_each_group_costs_what_its_own_steps_did() -> None:
    found = estimate(rehearsal(phase()), prunes=False)
    parts = {part.name: (part.times, part.seconds) for part in found.parts}
    assert parts == {
        "start": (1, 7.0),
        "steps": (100, pytest.approx(10 + 100)),
        "validations": (4, 12.0),
        "checkpoints": (6, 3.0),
        "end": (1, 1.0),
    }
    assert found.seconds.expected == pytest.approx(133)
    # Steps that cost the same a token leave no doubt.
    assert (found.seconds.low, found.seconds.high) == pytest.approx((133, 133))
    assert (found.steps, found.measured_steps, found.peak_memory_mb) == (100, 4, 900)


def test_the_interval_is_the_spread_of_the_steps() -> None:
    uneven = [Timed(0, 10, seconds) for seconds in (0.08, 0.1, 0.1, 0.1, 0.12)]
    found = estimate(rehearsal(phase(left=[1000, 0, 0, 0, 0], timed=uneven)), prunes=False)
    assert found.seconds.expected == pytest.approx(10 + 23)
    assert found.seconds.low == pytest.approx(33 * 0.84)
    assert found.seconds.high == pytest.approx(33 * 1.16)


def test_without_the_others_it_may_be_faster_and_not_slower() -> None:
    alone, beside = (estimate(rehearsal(phase(), taken=taken), prunes=False) for taken in (0.0, 0.4))
    assert beside.taken == 0.4
    assert beside.seconds.low == pytest.approx(0.6 * alone.seconds.low)
    assert (beside.seconds.expected, beside.seconds.high) == (alone.seconds.expected, alone.seconds.high)


def test_a_group_that_no_step_was_timed_of_costs_the_mean() -> None:
    found = estimate(rehearsal(phase(left=[0, 0, 100, 0, 0])), prunes=False)
    (steps,) = [part.seconds for part in found.parts if part.name == "steps"]
    assert steps == pytest.approx(100 * 1.8 / 105)


def test_what_is_done_is_not_counted_again() -> None:
    found = estimate(rehearsal(phase(done=60)), prunes=False)
    assert found.steps == 40
    assert "steps" in {part.name for part in found.parts if part.times == 40}


def test_three_checkpoints_are_there_at_once_and_then_what_is_saved() -> None:
    assert estimate(rehearsal(phase()), prunes=False).disk_mb == 30
    assert estimate(rehearsal(phase(saves=1)), prunes=False).disk_mb == 10
    assert estimate(rehearsal(phase()), prunes=False).kept_mb == 5
    assert estimate(rehearsal(phase(), tokens_bytes=7_000_000), prunes=False).disk_mb == 37
    small = estimate(rehearsal(phase(saves=1, checkpoint_bytes=1)), prunes=False)
    assert small.disk_mb == 5


def test_pruning_trains_twice_and_keeps_two_models() -> None:
    found = estimate(rehearsal(phase(), phase(name="after pruning", saves=1, evaluations=0)), prunes=True)
    assert [part.name for part in found.parts] == [
        "start",
        "steps training",
        "validations training",
        "checkpoints training",
        "steps after pruning",
        "checkpoints after pruning",
        "end",
    ]
    assert found.steps == 200
    assert (found.kept_mb, found.disk_mb) == (80, 150)
