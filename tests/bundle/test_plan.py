"""plan.json: it comes back as it was written, and what is no plan is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bentune.bundle.hardware import Cpu
from bentune.bundle.plan import CPU, FP32, OPENVINO, Check, Entry, Plan, model_file, scores_key

ENTRY = {
    "variant": "int8-static",
    "provider": CPU,
    "slots": 2,
    "threads": 3,
    "token_budget": 512,
    "inputs_per_second": 12.5,
    "lone_ms": 3.25,
    "padding": 0.125,
}
CHECK = {"variant": "int8-static", "provider": CPU, "rows": 100, "megabytes": 22.7}

VARIANTS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SOME = st.none() | NUMBERS
COUNTS = st.none() | st.integers(0, 1000)
CPUS = st.builds(Cpu, model=st.text(), isa=st.lists(st.text()).map(tuple), cores=st.integers(1, 512))
CHECKS = st.builds(
    Check,
    variant=VARIANTS,
    provider=st.text(),
    rows=st.integers(0, 10_000),
    megabytes=NUMBERS,
    accuracy=SOME,
    accuracy_loss=SOME,
    loss_low=SOME,
    loss_high=SOME,
    label_flips=COUNTS,
    batch_flips=COUNTS,
    batch_difference=SOME,
    alone=st.booleans(),
    kept_fp32=st.lists(st.text(), max_size=3).map(tuple),
    problem=st.text(),
)
ENTRIES = st.builds(
    Entry,
    variant=VARIANTS,
    provider=st.text(),
    slots=st.integers(1, 64),
    threads=st.integers(1, 64),
    token_budget=st.integers(1, 4096),
    inputs_per_second=st.floats(0, 1e6, exclude_min=True),
    lone_ms=st.floats(0, 1e6, exclude_min=True),
    padding=st.floats(0, 1),
)
PLANS = st.builds(
    Plan,
    variant=VARIANTS,
    provider=st.text(),
    slots=st.none() | st.integers(1, 64),
    threads=st.none() | st.integers(1, 64),
    token_budget=st.integers(1, 4096),
    padding_bound=st.floats(0, 1, exclude_max=True),
    cpu=st.none() | CPUS,
    taken=st.floats(0, 1),
    checks=st.lists(CHECKS, max_size=3).map(tuple),
    measured=st.lists(ENTRIES, max_size=3).map(tuple),
)


@given(PLANS)
def test_any_plan_comes_back_equal(plan: Plan) -> None:
    assert Plan.model_validate_json(json.dumps(plan.model_dump(mode="json"), allow_nan=False)) == plan


def test_the_default_plan_is_fp32_as_many_slots_as_cores() -> None:
    plan = Plan()
    assert (plan.variant, plan.provider, plan.slots, plan.threads) == ("fp32", "CPUExecutionProvider", None, None)
    assert (plan.checks, plan.measured, plan.cpu) == ((), (), None)
    assert plan.variants == {"fp32"}


def test_every_variant_that_was_measured_may_be_chosen_and_fp32_always() -> None:
    others = [ENTRY | {"variant": name} for name in ("int8-static", "int8-dynamic", "int8-static")]
    plan = Plan.model_validate({"variant": "int8-nncf", "measured": others})
    assert plan.variants == {"fp32", "int8-nncf", "int8-static", "int8-dynamic"}


def test_a_variant_that_was_refused_may_not_be_chosen() -> None:
    plan = Plan.model_validate({"checks": [CHECK | {"problem": "it loses 3 points"}]})
    assert plan.variants == {"fp32"}


def test_an_entry_keeps_slots_times_threads_cores_busy() -> None:
    assert Entry.model_validate(ENTRY).cores == 6


def test_an_entry_is_read_under_the_former_name_of_its_speed() -> None:
    former = {("texts_per_second" if name == "inputs_per_second" else name): value for name, value in ENTRY.items()}
    assert Entry.model_validate(former) == Entry.model_validate(ENTRY)
    assert Entry.model_validate(former).inputs_per_second == 12.5


def test_names_of_files_and_of_scores() -> None:
    assert model_file("int8-static") == "model/int8-static.onnx"
    assert model_file(FP32) == "model/fp32.onnx"
    assert scores_key("int8-static", OPENVINO) == "int8-static/OpenVINOExecutionProvider"


@pytest.mark.parametrize("place", ["plan", "check", "entry"])
def test_an_unknown_key_is_refused(place: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        {
            "plan": lambda: Plan.model_validate({"speed": 3}),
            "check": lambda: Plan.model_validate({"checks": [CHECK | {"speed": 3}]}),
            "entry": lambda: Plan.model_validate({"measured": [ENTRY | {"speed": 3}]}),
        }[place]()


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../fp32", "../../etc/passwd", "/fp32", "a/b", "a\\b", "a.b", "fp32.onnx", "fp32\n", "a b"),
        *("FP32", "-fp32", "a" * 33, "über", "a\x00b", "a_b"),
    ],
)
def test_a_name_that_is_no_plain_file_name_is_refused_as_a_variant(name: str) -> None:
    for values in (
        {"variant": name},
        {"measured": [ENTRY | {"variant": name}]},
        {"checks": [CHECK | {"variant": name}]},
    ):
        with pytest.raises(ValidationError, match="String should match pattern"):
            Plan.model_validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {"slots": 0},
        {"threads": 0},
        {"token_budget": 0},
        {"padding_bound": 1.0},
        {"padding_bound": -0.1},
        {"measured": [ENTRY | {"slots": 0}]},
        {"measured": [ENTRY | {"threads": 0}]},
        {"measured": [ENTRY | {"token_budget": 0}]},
        {"measured": [ENTRY | {"inputs_per_second": 0}]},
        {"measured": [ENTRY | {"lone_ms": 0}]},
        {"measured": [ENTRY | {"padding": 1.5}]},
        {"measured": [ENTRY | {"inputs_per_second": float("inf")}]},
        {"measured": [ENTRY | {"lone_ms": float("nan")}]},
        {"checks": [CHECK | {"accuracy_loss": float("nan")}]},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Plan.model_validate(values)


def test_a_plan_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Plan().variant = "int8"
