"""The search finds the fastest way of running, measures the best ones again, and says beforehand how long it takes."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.plan import CPU, FP32, OPENVINO, Check, Entry
from service.engine.runtime import Runtime
from training.plan.search import (
    FINAL_ROUNDS,
    FINALISTS,
    MORE_TOKEN_BUDGETS,
    TIE,
    TOKEN_BUDGETS,
    first_round,
    search,
    shapes,
    steps,
)


def check(variant: str, provider: str = CPU, **more: Any) -> Check:
    return Check(variant=variant, provider=provider, rows=100, megabytes=1.0, **more)


class Machine:
    """Measures as `speed` says, and remembers what it was asked."""

    def __init__(self, speed: Callable[[Runtime, int], float]) -> None:
        self.speed = speed
        self.asked: list[Runtime] = []
        self.given: dict[Runtime, list[float]] = defaultdict(list)

    def __call__(self, runtime: Runtime) -> Entry:
        speed = self.speed(runtime, len(self.given[runtime]))
        self.asked.append(runtime)
        self.given[runtime].append(speed)
        return Entry(
            variant=runtime.variant,
            provider=runtime.provider,
            slots=runtime.slots,
            threads=runtime.threads,
            token_budget=runtime.token_budget,
            inputs_per_second=speed,
            lone_ms=1000 / speed,
            padding=0.1,
        )


def runtime_of(entry: Entry) -> Runtime:
    return Runtime(entry.variant, entry.provider, entry.slots, entry.threads, entry.token_budget)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(2, 1), (1, 2)]),
        (3, [(3, 1), (1, 3)]),
        (4, [(4, 1), (2, 2), (1, 4)]),
        (6, [(6, 1), (3, 2), (1, 6)]),
        (8, [(8, 1), (4, 2), (2, 4), (1, 8)]),
        (12, [(12, 1), (6, 2), (3, 4), (1, 12)]),
    ],
)
def test_shapes(cores: int, expected: list[tuple[int, int]]) -> None:
    assert shapes(cores) == expected


@given(st.integers(1, 256))
def test_every_shape_keeps_all_cores_busy_and_is_there_once(cores: int) -> None:
    found = shapes(cores)
    assert all(slots * threads == cores for slots, threads in found)
    assert len(found) == len(set(found))
    assert {(cores, 1), (1, cores)} <= set(found)


def test_everything_that_passed_is_measured_and_one_core_alone_too() -> None:
    checks = [check(FP32), check("int8-static"), check("int8-nncf", problem="it loses 3 points"), check(FP32, OPENVINO)]
    found = first_round(checks, 2)
    assert {(one.variant, one.provider) for one in found} == {(FP32, CPU), ("int8-static", CPU), (FP32, OPENVINO)}
    for variant, provider in ((FP32, CPU), ("int8-static", CPU), (FP32, OPENVINO)):
        mine = {
            (one.slots, one.threads, one.token_budget)
            for one in found
            if (one.variant, one.provider) == (variant, provider)
        }
        assert mine == {(2, 1, 256), (2, 1, 512), (1, 2, 256), (1, 2, 512), (1, 1, 512)}
    assert len(first_round([check(FP32)], 1)) == len(TOKEN_BUDGETS), "one core is all of them"


def test_what_depends_on_its_batch_is_measured_one_row_at_a_time_only() -> None:
    assert {one.token_budget for one in first_round([check("int8-dynamic", alone=True)], 4)} == {1}
    machine = Machine(lambda runtime, _: 100.0 if runtime.variant == "int8-dynamic" else 1.0)
    found = search([check(FP32), check("int8-dynamic", alone=True)], 4, machine)
    assert found[0].variant == "int8-dynamic"
    assert {one.token_budget for one in machine.asked if one.variant == "int8-dynamic"} == {1}


def test_the_closer_look_is_at_the_fastest_that_may_run_in_batches() -> None:
    def speed(runtime: Runtime, _: int) -> float:
        return {"int8-dynamic": 100.0, "int8-static": 90.0}.get(runtime.variant, 10.0)

    machine = Machine(speed)
    search([check(FP32), check("int8-static"), check("int8-dynamic", alone=True)], 2, machine)
    looked = {one.variant for one in machine.asked if one.token_budget in MORE_TOKEN_BUDGETS}
    assert looked == {"int8-static"}


def test_where_nothing_may_run_in_batches_there_is_no_closer_look() -> None:
    machine = Machine(lambda runtime, _: 10.0)
    found = search([check(FP32, alone=True)], 2, machine)
    assert {one.token_budget for one in machine.asked} == {1}
    assert found[0].variant == FP32


def test_the_same_variant_may_be_alone_on_one_provider_only() -> None:
    machine = Machine(lambda runtime, _: 9.0 if runtime.provider == OPENVINO else 5.0)
    search([check("int8-nncf", CPU, alone=True), check("int8-nncf", OPENVINO)], 2, machine)
    budgets = {
        provider: {one.token_budget for one in machine.asked if one.provider == provider}
        for provider in (CPU, OPENVINO)
    }
    assert budgets == {CPU: {1}, OPENVINO: {*TOKEN_BUDGETS, *MORE_TOKEN_BUDGETS}}


def test_the_fastest_is_first_also_when_only_a_closer_look_finds_it() -> None:
    def speed(runtime: Runtime, _: int) -> float:
        shape = {(4, 1): 50.0, (2, 2): 80.0, (1, 4): 30.0}.get((runtime.slots, runtime.threads), 10.0)
        return shape * (2 if runtime.variant == "int8-static" else 1) * (1 + runtime.token_budget / 2048)

    machine = Machine(speed)
    found = search([check(FP32), check("int8-static")], 4, machine)
    assert runtime_of(found[0]) == Runtime("int8-static", CPU, 2, 2, 1024)
    assert found[0].inputs_per_second == pytest.approx(80 * 2 * 1.5)
    assert Runtime(FP32, CPU, 2, 2, 1024) not in machine.asked, "only the fastest is looked at closely"


def test_what_leaves_cores_idle_comes_last_however_fast() -> None:
    machine = Machine(lambda runtime, _: 1000.0 if runtime.slots * runtime.threads == 1 else 10.0)
    found = search([check(FP32), check("int8-static")], 2, machine)
    assert [entry.cores for entry in found] == [2] * (len(found) - 2) + [1, 1]


def of_shape(runtime: Runtime) -> tuple[int, int, int]:
    return runtime.slots, runtime.threads, runtime.token_budget


def test_the_speed_of_a_finalist_is_the_median_of_its_later_rounds() -> None:
    """The first round flatters fp32: a neighbour was quiet just then."""
    of_int8 = iter([50.0, 120.0, 90.0, 100.0])

    def speed(runtime: Runtime, earlier: int) -> float:
        if runtime.variant == "int8-static":
            return next(of_int8) if of_shape(runtime) == (2, 1, 512) else 40.0
        return 300.0 if (of_shape(runtime), earlier) == ((2, 1, 512), 0) else 60.0

    machine = Machine(speed)
    found = search([check(FP32), check("int8-static", label_flips=3)], 2, machine)
    assert runtime_of(found[0]) == Runtime("int8-static", CPU, 2, 1, 512)
    assert (found[0].inputs_per_second, found[0].lone_ms) == (100.0, 10.0)
    speeds = {runtime_of(entry): entry.inputs_per_second for entry in found}
    assert speeds[Runtime(FP32, CPU, 2, 1, 512)] == 60.0
    again = {runtime: len(rounds) for runtime, rounds in machine.given.items() if len(rounds) > 1}
    assert again == dict.fromkeys(
        [Runtime(FP32, CPU, 2, 1, 512), Runtime("int8-static", CPU, 2, 1, 512)], 1 + FINAL_ROUNDS
    )


def test_finalists_are_the_best_of_each_variant_and_take_turns() -> None:
    ranks = [FP32, "int8-dynamic", "int8-static", "int8-nncf"]
    machine = Machine(
        lambda runtime, _: 10.0 * ranks.index(runtime.variant) + runtime.slots + runtime.token_budget / 4096
    )
    search([check(variant) for variant in ranks] + [check(FP32, OPENVINO)], 4, machine)
    last = machine.asked[-FINALISTS * FINAL_ROUNDS :]
    rounds = [last[start : start + FINALISTS] for start in range(0, len(last), FINALISTS)]
    assert all(one == rounds[0] for one in rounds)
    assert [one.variant for one in rounds[0]] == ranks[::-1]
    assert [one.slots for one in rounds[0]] == [4] * FINALISTS


@pytest.mark.parametrize(
    ("speed", "flips", "winner"),
    [
        pytest.param(96.0, 1, "int8-static", id="level, and it changes fewer labels"),
        pytest.param(94.0, 1, "int8-nncf", id="more than a twentieth slower"),
        pytest.param(96.0, 5, "int8-nncf", id="level, and it changes as many labels"),
        pytest.param(96.0, 6, "int8-nncf", id="level, and it changes more labels"),
    ],
)
def test_of_variants_that_are_level_the_one_nearest_to_fp32_wins(speed: float, flips: int, winner: str) -> None:
    speeds = {"int8-nncf": 100.0, "int8-static": speed, FP32: 50.0}
    machine = Machine(lambda runtime, _: speeds[runtime.variant] if of_shape(runtime) == (2, 1, 512) else 1.0)
    checks = [check(FP32, label_flips=0), check("int8-static", label_flips=flips), check("int8-nncf", label_flips=5)]
    found = search(checks, 2, machine)
    assert found[0].variant == winner
    rest = [entry.inputs_per_second for entry in found[1:] if entry.cores == 2]
    assert rest == sorted(rest, reverse=True)


def test_fp32_wins_where_nothing_is_clearly_faster() -> None:
    machine = Machine(lambda runtime, _: 100.0 if runtime.variant == FP32 else 104.0)
    assert search([check(FP32, label_flips=0), check("int8-static", label_flips=1)], 2, machine)[0].variant == FP32


OTHERS = st.lists(
    st.builds(
        check,
        st.sampled_from(["int8-dynamic", "int8-static", "int8-nncf"]),
        st.sampled_from([CPU, OPENVINO]),
        alone=st.booleans(),
        label_flips=st.integers(0, 9),
        problem=st.sampled_from(["", "", "it loses 3 points"]),
    ),
    unique_by=lambda one: (one.variant, one.provider),
    max_size=5,
)


@examples(60)
@given(st.booleans(), OTHERS, st.integers(1, 48), st.randoms(use_true_random=False))
def test_what_holds_for_every_search(alone: bool, others: list[Check], cores: int, random: Any) -> None:
    checks = [check(FP32, alone=alone, label_flips=0), *others]
    machine = Machine(lambda *_: random.uniform(1, 100))
    found = search(checks, cores, machine)
    assert len(machine.asked) <= steps(checks, cores)
    # Each runtime that was measured is there once: with what was measured, or with the median of its final rounds.
    assert Counter(map(runtime_of, found)) == Counter(dict.fromkeys(machine.given, 1))
    for entry in found:
        first, *later = machine.given[runtime_of(entry)]
        assert entry.inputs_per_second == (statistics.median(later) if later else first)
        assert len(later) in (0, FINAL_ROUNDS)
    whole = [entry for entry in found[1:] if entry.cores == cores]
    assert [entry.inputs_per_second for entry in whole] == sorted((e.inputs_per_second for e in whole), reverse=True)
    assert found[: len(whole) + 1] == [found[0], *whole]
    assert found[0].cores == cores
    # The winner is a finalist that is level with the fastest of them, and of these the one that flips the fewest.
    finalists = [entry for entry in found if len(machine.given[runtime_of(entry)]) > 1]
    assert len({(entry.variant, entry.provider) for entry in finalists}) == len(finalists) <= FINALISTS
    fastest = max(entry.inputs_per_second for entry in finalists)
    flips = {(one.variant, one.provider): one.label_flips or 0 for one in checks}
    level = [entry for entry in finalists if entry.inputs_per_second >= (1 - TIE) * fastest]
    assert found[0] in level
    assert flips[found[0].variant, found[0].provider] == min(flips[e.variant, e.provider] for e in level)
    passed = {(one.variant, one.provider) for one in checks if not one.problem}
    assert {(entry.variant, entry.provider) for entry in found} == passed
    for one in checks:
        budgets = {e.token_budget for e in found if (e.variant, e.provider) == (one.variant, one.provider)}
        assert one.problem or (budgets == {1} if one.alone else budgets >= set(TOKEN_BUDGETS))
