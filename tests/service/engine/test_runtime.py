"""Runtime of a pod: the plan where it fits, else the next best that was measured, and why."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.hardware import Cpu
from bentune.bundle.plan import CPU, FP32, OPENVINO, Entry, Plan
from service.engine.runtime import REASONS, Runtime, choose, in_fp32

VNNI = ("avx2", "avx512_vnni")


def cpu(cores: int, isa: tuple[str, ...] = VNNI) -> Cpu:
    return Cpu(model="a test", isa=isa, cores=cores)


def entry(
    variant: str, slots: int, threads: int, speed: float = 1.0, *, provider: str = CPU, budget: int = 512
) -> Entry:
    return Entry(
        variant=variant,
        provider=provider,
        slots=slots,
        threads=threads,
        token_budget=budget,
        inputs_per_second=speed,
        lone_ms=1.0,
        padding=0.0,
    )


MEASURED = (
    entry("int8-nncf", 4, 1, 100, provider=OPENVINO, budget=2048),
    entry("int8-static", 2, 2, 80),
    entry("int8-dynamic", 4, 1, 60, budget=1),
    entry(FP32, 4, 1, 40, budget=1024),
    entry("int8-static", 1, 1, 25),
    entry(FP32, 1, 1, 12, budget=1024),
)
PLAN = Plan(variant="int8-nncf", provider=OPENVINO, slots=4, threads=1, cpu=cpu(4), measured=MEASURED)


def chosen(plan: Plan, here: Cpu, *providers: str) -> tuple[Runtime, set[str]]:
    runtime, fallbacks = choose(plan, here, providers)
    return runtime, {fallback.reason for fallback in fallbacks}


def test_where_everything_fits_the_winner_runs() -> None:
    assert chosen(PLAN, cpu(4), CPU, OPENVINO) == (Runtime("int8-nncf", OPENVINO, 4, 1, 2048), set())


def test_more_instructions_than_the_plan_was_measured_with_are_fine() -> None:
    assert chosen(PLAN, cpu(4, (*VNNI, "amx_int8")), CPU, OPENVINO)[1] == set()


@pytest.mark.parametrize(
    ("here", "providers", "expected", "reasons"),
    [
        pytest.param(cpu(4), (CPU,), Runtime("int8-static", CPU, 2, 2, 512), {"provider"}, id="no OpenVINO"),
        # The one-core entry of int8-static, on each of the three cores.
        pytest.param(cpu(3), (CPU, OPENVINO), Runtime("int8-static", CPU, 3, 1, 512), {"cores"}, id="fewer cores"),
        pytest.param(
            cpu(4, ("avx2",)), (CPU, OPENVINO), Runtime(FP32, CPU, 4, 1, 1024), {"isa"}, id="no instructions for int8"
        ),
        pytest.param(
            cpu(2, ()), (CPU,), Runtime(FP32, CPU, 2, 1, 1024), {"cores", "isa", "provider"}, id="everything is less"
        ),
        pytest.param(cpu(1), (CPU,), Runtime("int8-static", CPU, 1, 1, 512), {"cores", "provider"}, id="one core"),
    ],
)
def test_where_the_winner_does_not_fit_the_next_best_runs(
    here: Cpu, providers: tuple[str, ...], expected: Runtime, reasons: set[str]
) -> None:
    assert chosen(PLAN, here, *providers) == (expected, reasons)


def test_each_reason_is_told_once_and_in_words() -> None:
    _, fallbacks = choose(PLAN, cpu(2, ("avx2",)), (CPU,))
    assert {fallback.reason: fallback.message for fallback in fallbacks} == {
        "cores": f"int8-nncf on {OPENVINO} with 4 x 1 cores needs 4 cores, this process has 2",
        "provider": f"int8-nncf on {OPENVINO} with 4 x 1 cores: the provider is not installed",
        "isa": (f"int8-nncf on {OPENVINO} with 4 x 1 cores was proven with avx512_vnni, which this CPU does not have"),
    }
    assert len(fallbacks) == 3


@pytest.mark.parametrize(("cores", "slots"), [(4, 4), (5, 5), (8, 8), (64, 64)])
def test_more_cores_than_were_measured_add_slots(cores: int, slots: int) -> None:
    assert chosen(PLAN, cpu(cores), CPU, OPENVINO) == (Runtime("int8-nncf", OPENVINO, slots, 1, 2048), set())


@pytest.mark.parametrize(("cores", "slots"), [(4, 2), (5, 2), (6, 3), (9, 4)])
def test_slots_that_are_added_keep_their_threads(cores: int, slots: int) -> None:
    assert chosen(PLAN, cpu(cores), CPU) == (Runtime("int8-static", CPU, slots, 2, 512), {"provider"})


def test_where_nothing_that_was_measured_fits_fp32_runs() -> None:
    """The token budget is the one that was best for fp32.

    The winner's is of a variant that may only run rows one by one.
    """
    plan = Plan(
        cpu=cpu(4), measured=(entry("int8-dynamic", 4, 1, budget=1), entry(FP32, 2, 2, budget=77)), token_budget=1
    )
    assert chosen(plan, cpu(1, ()), CPU) == (Runtime(FP32, CPU, 1, 1, 77), {"cores", "isa"})
    assert chosen(plan, cpu(3, ()), CPU) == (Runtime(FP32, CPU, 3, 1, 77), {"cores", "isa"})
    assert in_fp32(plan, cpu(3)) == Runtime(FP32, CPU, 3, 1, 77)
    assert in_fp32(Plan(token_budget=99), cpu(3)) == Runtime(FP32, CPU, 3, 1, 99)


def test_a_plan_whose_cpu_is_unknown_asks_for_no_instructions() -> None:
    plan = Plan(measured=(entry("int8-static", 1, 1),))
    assert chosen(plan, cpu(1, ()), CPU) == (Runtime("int8-static", CPU, 1, 1, 512), set())


@pytest.mark.parametrize(
    ("values", "cores", "slots", "threads"),
    [
        ({}, 1, 1, 1),
        ({}, 6, 6, 1),
        ({"threads": 2}, 6, 3, 2),
        ({"threads": 4}, 6, 1, 4),
        ({"threads": 8}, 6, 1, 6),
        ({"slots": 2}, 6, 2, 1),
        ({"slots": 2, "threads": 3}, 6, 2, 3),
        ({"slots": 9}, 6, 6, 1),
        ({"slots": 9, "threads": 9}, 6, 1, 6),
    ],
)
def test_a_plan_that_nobody_measured_follows_the_cores(
    values: dict[str, Any], cores: int, slots: int, threads: int
) -> None:
    assert chosen(Plan(token_budget=99, **values), cpu(cores), CPU) == (Runtime(FP32, CPU, slots, threads, 99), set())


FLAGS = st.lists(st.sampled_from(["avx2", "fma", "avx512_vnni", "amx_int8"]), unique=True).map(tuple)
CPUS = st.builds(Cpu, model=st.just("a test"), isa=FLAGS, cores=st.integers(1, 40))
ENTRIES = st.builds(
    entry,
    st.sampled_from([FP32, "int8-dynamic", "int8-static", "int8-nncf"]),
    st.integers(1, 16),
    st.integers(1, 16),
    st.floats(0.1, 1e4),
    provider=st.sampled_from([CPU, OPENVINO]),
    budget=st.integers(1, 4096),
)
SORTED = st.lists(ENTRIES, min_size=1, max_size=8).map(
    lambda found: tuple(sorted(found, key=lambda one: -one.inputs_per_second))
)
PLANS = st.builds(Plan, cpu=st.none() | CPUS, measured=SORTED, token_budget=st.integers(1, 4096))
PROVIDERS = st.sampled_from([(CPU,), (CPU, OPENVINO)])


def fits(one: Entry, plan: Plan, here: Cpu, providers: tuple[str, ...]) -> bool:
    """Said again, otherwise than in the source."""
    needs = plan.cpu.isa if plan.cpu is not None and one.variant.startswith("int8") else ()
    return one.slots * one.threads <= here.cores and one.provider in providers and all(x in here.isa for x in needs)


@given(PLANS, CPUS, PROVIDERS)
def test_what_is_chosen_can_run_here(plan: Plan, here: Cpu, providers: tuple[str, ...]) -> None:
    runtime, _ = choose(plan, here, providers)
    assert 1 <= runtime.slots * runtime.threads <= here.cores
    assert runtime.provider in providers
    missing = set(plan.cpu.isa if plan.cpu else ()) - set(here.isa)
    assert runtime.variant == FP32 or not missing
    assert runtime.token_budget in {plan.token_budget, *(one.token_budget for one in plan.measured)}


@given(PLANS, CPUS, PROVIDERS)
def test_no_core_is_left_idle_that_another_slot_could_use(plan: Plan, here: Cpu, providers: tuple[str, ...]) -> None:
    runtime, _ = choose(plan, here, providers)
    assert (runtime.slots + 1) * runtime.threads > here.cores


@given(PLANS, CPUS, PROVIDERS)
def test_the_fastest_entry_that_fits_is_chosen(plan: Plan, here: Cpu, providers: tuple[str, ...]) -> None:
    runtime, _ = choose(plan, here, providers)
    best = next((one for one in plan.measured if fits(one, plan, here, providers)), None)
    got = (runtime.variant, runtime.provider, runtime.threads, runtime.token_budget)
    if best is None:
        fp32 = [one.token_budget for one in plan.measured if (one.variant, one.provider) == (FP32, CPU)]
        assert got == (FP32, CPU, 1, [*fp32, plan.token_budget][0])
    else:
        assert got == (best.variant, best.provider, best.threads, best.token_budget)


@given(PLANS, CPUS, PROVIDERS)
def test_a_fallback_is_told_exactly_when_the_winner_does_not_run(
    plan: Plan, here: Cpu, providers: tuple[str, ...]
) -> None:
    _, fallbacks = choose(plan, here, providers)
    reasons = [fallback.reason for fallback in fallbacks]
    assert bool(fallbacks) == (not fits(plan.measured[0], plan, here, providers))
    assert len(reasons) == len(set(reasons))
    assert set(reasons) <= set(REASONS)
    assert all(fallback.message for fallback in fallbacks)


@given(PLANS)
def test_on_the_cpu_that_it_was_measured_on_the_winner_runs(plan: Plan) -> None:
    best = plan.measured[0]
    here = cpu(best.slots * best.threads, plan.cpu.isa if plan.cpu else ())
    expected = Runtime(best.variant, best.provider, best.slots, best.threads, best.token_budget)
    assert choose(plan, here, (CPU, OPENVINO)) == (expected, [])
