"""The sizing follows its rules, number by number, and holds in the simulation what it was sized for."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from measured import capacity, knee_of
from properties import examples

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_json
from rollout.capacity.fleet import BUSY, QUEUE
from rollout.capacity.pod_model import PodModel
from rollout.capacity.simulation import simulate
from rollout.capacity.sizing import PRE_STOP_S, Growth, Sizing, habits, read_capacity, require_measured, size
from rollout.capacity.traffic import BUILT_IN, Traffic, built_in
from rollout.load.knee import Capacity
from rollout.load.slo import parse_objective
from service.settings import Settings

K8S = Path(__file__).parents[3] / "k8s"
P99 = parse_objective("p99=200ms")
KNEE = knee_of(P99)


def sized(
    traffic: Traffic, peak: float = 500.0, measured: Capacity | None = None, slo: str = "p99=200ms", **given: Any
) -> Sizing:
    given.setdefault("settings", Settings())
    return size(measured or capacity(), parse_objective(slo), traffic, peak=peak, **given)


def target(sizing: Sizing, metric: str) -> float:
    return next(each.mean for each in sizing.scaling.targets if each.metric == metric)


def test_the_rules_for_a_day() -> None:
    sizing = sized(built_in("daily", 500))
    # 76.97 requests/s at the knee, of which 61.6 are planned.
    assert sizing.rate_per_pod == pytest.approx(76.97, abs=0.01)
    assert sizing.replicas_at_peak == math.ceil(500 / 61.58) == 9
    # 100 requests/s in the quietest hour; within 105 s the day grows by less than the headroom takes up.
    assert (sizing.scaling.min_replicas, sizing.scaling.max_replicas) == (2, 9)
    assert sizing.reaction_s == 60 + 15 + 30
    assert target(sizing, BUSY) == pytest.approx(0.7697 * 0.8, abs=0.001)
    # 76.97 x 0.2 s x 0.8
    assert target(sizing, QUEUE) == 12
    assert [keda.threshold for keda in sizing.keda] == [each.mean for each in sizing.scaling.targets]
    assert sizing.keda[0].query == "sum(avg_over_time(bentune_slots_busy[1m]))"
    assert sizing.resources.cpu == 2
    assert sizing.queue_requests == 1024
    assert sizing.shutdown.grace_period_s == 5 + 30 + 25 + 5


def test_growth_that_no_pod_comes_in_time_for_is_there_before() -> None:
    """The rate grows from 100 to 500 requests/s at once.

    The minimum of pods must hold 500 at the knee, and not below it.
    """
    sizing = sized(built_in("step", 500))
    assert sizing.scaling.min_replicas == math.ceil(500 / KNEE) == 7
    # While new pods start, at most 2 pods x 1024 requests are left waiting, to be worked off within 105 s: 19.5/s more.
    assert sizing.scaling.max_replicas == math.ceil((500 + 2048 / 105) / (0.8 * KNEE)) == 9


def test_a_longer_start_up_needs_more_pods_before() -> None:
    ramp = built_in("ramp", 5000)
    least = [sized(ramp, 5000, startup_s=startup).scaling.min_replicas for startup in (0, 30, 120, 600)]
    assert least == sorted(least)
    assert least[0] < least[-1] <= math.ceil(5000 / KNEE)


def test_the_most_pods_hold_what_the_start_up_left_waiting() -> None:
    quick, slow = (sized(built_in("spike", 50_000), 50_000, startup_s=startup) for startup in (0, 60))
    assert quick.replicas_at_peak == slow.replicas_at_peak
    assert quick.scaling.max_replicas > quick.replicas_at_peak


@examples(60)
@given(
    peak=st.floats(1, 20_000),
    headroom=st.floats(0.1, 0.9),
    startup_s=st.floats(0, 300),
    name=st.sampled_from(sorted(BUILT_IN)),
)
def test_what_always_agrees(peak: float, headroom: float, startup_s: float, name: str) -> None:
    sizing = sized(built_in(name, peak), peak, headroom=headroom, startup_s=startup_s)
    scaling = sizing.scaling
    assert sizing.replicas_at_peak * KNEE * headroom >= peak * (1 - 1e-6)
    assert (sizing.replicas_at_peak - 1) * KNEE * headroom < peak
    assert 2 <= scaling.min_replicas <= max(math.ceil(peak / KNEE / min(headroom, 1)), 2)
    assert scaling.max_replicas >= max(sizing.replicas_at_peak, scaling.min_replicas)
    # Within the tolerance the metric may stand above its target, and that must not be beyond the knee.
    assert target(sizing, BUSY) * (1 + scaling.tolerance) <= PodModel.of(capacity()).busy + 0.002
    assert target(sizing, QUEUE) <= sizing.queue_requests


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("peak", [500.0, 10_000.0])
def test_the_sizing_holds_in_the_simulation(name: str, peak: float) -> None:
    traffic = built_in(name, peak)
    sizing = sized(traffic, peak)
    outcome, _ = simulate(PodModel.of(capacity()), sizing.scaling, traffic, P99, habits(sizing))
    assert outcome.held
    assert outcome.violated_s == 0
    assert outcome.refused == 0
    assert outcome.replica_hours < outcome.steady_replica_hours


def test_a_flat_curve_needs_nothing_beyond_its_pods() -> None:
    flat = Traffic("flat", np.array([0.0, 600.0]), np.array([500.0, 500.0]))
    sizing = sized(flat)
    assert (sizing.scaling.min_replicas, sizing.scaling.max_replicas) == (9, 9)
    assert Growth.of(flat, 105, 0.8) == Growth(overrun=0, backlog=0, before=500 / 0.8 / 1.1)


def test_growth_within_the_headroom_is_none() -> None:
    """A jump by a tenth is within the headroom, and one by a half is not.

    Pods that work at eight tenths take up a tenth, tolerance included.
    """
    tenth, half = (
        Traffic("jump", np.array([0.0, 300, 300, 600]), np.array([100.0, 100, 100 * by, 100 * by])) for by in (1.1, 1.5)
    )
    assert Growth.of(tenth, 105, 0.8).overrun == 0
    growth = Growth.of(half, 105, 0.8)
    assert growth.overrun == 150
    assert growth.backlog == pytest.approx((150 - 100 / 0.88) * 105, rel=0.02)


@pytest.mark.parametrize("slo", ["p99=200ms", "p99=1s", "p90=200ms", "p50=3s"])
def test_an_objective_that_is_as_loose_as_what_was_measured(slo: str) -> None:
    require_measured(parse_objective(slo), capacity())


@pytest.mark.parametrize("slo", ["p99=199ms", "p99.9=200ms", "p99.9=3s", "p50=100ms"])
def test_a_stricter_objective_was_not_measured(slo: str) -> None:
    with pytest.raises(InputError, match=r"--slo .* is stricter than p99=200ms, with which one-server:1") as error:
        sized(built_in("daily", 500), slo=slo)
    assert str(parse_objective(slo)) in str(error.value)


@pytest.mark.parametrize("headroom", [0.0, -1.0, 0.95, 2.0])
def test_a_headroom_that_the_tolerance_eats_is_refused(headroom: float) -> None:
    with pytest.raises(InputError, match=r"above 0 and at most 0.91"):
        sized(built_in("daily", 500), headroom=headroom)


def test_cores_come_from_the_machine_the_plan_or_the_option() -> None:
    remote = capacity(slots=3).model_copy(update={"same_machine": False})
    traffic = built_in("daily", 500)
    assert sized(traffic, measured=remote).resources.cpu == 3 * 2
    assert sized(traffic, measured=remote, cpu=1.5, memory="1Gi").resources.model_dump() == {
        "cpu": 1.5,
        "memory": "1Gi",
    }
    silent = remote.model_copy(update={"model": {"plan": {"slots": 3}}})
    with pytest.raises(InputError, match="give them with --cpu"):
        sized(traffic, measured=silent)
    assert sized(traffic, measured=silent, cpu=4).resources.cpu == 4


def test_the_least_pods_may_be_given() -> None:
    step = built_in("step", 500)
    assert sized(step, least=1).scaling.min_replicas == 1
    assert sized(step, least=40).scaling.max_replicas == 40


def test_settings_of_the_service_change_what_follows_from_them() -> None:
    sizing = sized(
        built_in("daily", 500), settings=Settings(request_timeout_ms=5000, drain_timeout_ms=10_500, queue_inputs=900)
    )
    # Six tenths of 5 s at 100 requests/s are fewer than the queue holds.
    assert sizing.queue_requests == 300
    assert sizing.shutdown.grace_period_s == 51
    texts = capacity().model_copy(update={"inputs_per_request": 10})
    sizing = sized(built_in("daily", 500), measured=texts)
    assert sizing.queue_requests == 102
    assert target(sizing, QUEUE) == math.floor(KNEE * 0.2 * 10 * 0.8)
    with pytest.raises(InputError, match=r"BENTUNE_REQUEST_TIMEOUT_MS=60000: a request may wait 36 s.*at most 50000"):
        sized(built_in("daily", 500), settings=Settings(request_timeout_ms=60_000))


def test_more_pods_than_any_cluster_has_are_refused() -> None:
    with pytest.raises(InputError, match="more than 100000"):
        sized(built_in("daily", 1e8), 1e8)


def test_capacity_json_is_read_or_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "capacity.json"
    with pytest.raises(InputError, match=r"cannot be read .*--find-knee"):
        read_capacity(path)
    path.write_text('{"rate_per_pod": 3}')
    with pytest.raises(InputError, match=r"is no capacity.json \(created_at: Field required\)"):
        read_capacity(path)
    path.write_text("[")
    with pytest.raises(InputError, match=r"is no capacity.json \(the file: Invalid JSON"):
        read_capacity(path)
    write_json(path, capacity().model_copy(update={"schema_version": 9}))
    with pytest.raises(InputError, match="has version 9, not 1"):
        read_capacity(path)
    write_json(path, capacity())
    assert read_capacity(path) == capacity()


def test_the_base_has_the_same_pre_stop_and_grace_period() -> None:
    pods = yaml.safe_load((K8S / "base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pods["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", f"{PRE_STOP_S:g}"]
    shutdown = sized(built_in("daily", 500)).shutdown
    assert pods["terminationGracePeriodSeconds"] == shutdown.grace_period_s
    assert container["args"][-2:] == ["--timeout-graceful-shutdown", f"{shutdown.open_connections_s:g}"]
