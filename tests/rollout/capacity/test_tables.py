"""The tables hold the plan's numbers, and what is doubtful is said."""

import io
from datetime import UTC, datetime
from typing import Any

from measured import capacity
from rich.console import Console
from rich.table import Table

from rollout.capacity.pod_model import PodModel
from rollout.capacity.simulation import simulate
from rollout.capacity.sizing import CapacityPlan, TrafficSummary, habits, size
from rollout.capacity.tables import outcome_table, sizing_table, warnings
from rollout.capacity.traffic import built_in
from rollout.load.slo import parse_objective
from service.settings import Settings


def plan(name: str = "daily", peak: float = 500, **given: Any) -> CapacityPlan:
    objective, traffic = parse_objective("p99=200ms"), built_in(name, 500)
    sizing = size(capacity(), objective, traffic, peak=peak, settings=Settings(), **given)
    outcome, _ = simulate(PodModel.of(capacity()), sizing.scaling, traffic, objective, habits(sizing))
    return CapacityPlan(
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        server="one-server:1",
        model=None,
        measured=objective,
        sizing=sizing,
        traffic=TrafficSummary(name=name, seconds=traffic.duration_s, lowest=traffic.lowest, highest=traffic.highest),
        simulated=outcome,
    )


def text(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_sizing_with_its_reasons() -> None:
    shown = text(sizing_table(plan(memory="1Gi")))
    for words in (
        "77.0 requests/s a pod x headroom 0.8 = 61.6",
        "2 / 9",
        "616m bentune_slots_busy_avg",
        "12 bentune_queue_requests_avg",
        "2 cores",
        "1Gi",
        "65 s",
        "preStop 5 + open connections 30 + drain 25 + margin 5",
        "1024 requests",
    ):
        assert words in shown
    assert "not measured; give --memory" in text(sizing_table(plan()))


def test_the_outcome() -> None:
    shown = text(outcome_table(plan()))
    assert "simulated: daily, 24.0 h, 100 to 500 requests/s" in shown
    assert "held" in shown
    assert "0 s (0.00%)" in shown
    shown = text(outcome_table(plan("step", least=1)))
    assert "missed" in shown
    assert "simulated: step, 35.0 min" in shown


def test_what_is_doubtful() -> None:
    fine = plan("ramp")
    assert warnings(fine, startup_known=True) == []
    (assumed,) = warnings(fine, startup_known=False)
    assert "30 s are assumed" in assumed
    assert "up to 500 requests/s, above --peak 300" in warnings(plan("ramp", peak=300), startup_known=True)[0]
