"""A load's summary is what was measured, and can be written as JSON whatever happened."""

import json

import numpy as np
import pytest

from rollout.load.generator import Load
from rollout.load.latency import Latency, LoadSummary, curve


def measured(latency_s: list[float], status: list[int], group: list[str]) -> Load:
    count = len(latency_s)
    return Load(
        started_s=np.arange(count, dtype=float),
        latency_s=np.array(latency_s),
        status=np.array(status, np.int64),
        inputs=np.full(count, 2, np.int64),
        group=np.array(group, np.str_),
        retry_after_s=np.array([np.nan if one == 200 else 4.0 for one in status]),
        lag_s=np.linspace(0, 0.02, count),
        seconds=2.0,
        answered=status.count(200),
        answered_inputs=2 * status.count(200),
        cpu_s=0.5,
    )


def test_a_summary_has_every_number() -> None:
    summary = LoadSummary.of(measured([0.1, 0.2, 0.3, 9.0], [200, 200, 200, 429], ["short", "short", "long", "long"]))
    assert (summary.requests, summary.requests_per_s, summary.inputs_per_s) == (4, 1.5, 3.0)
    assert summary.statuses == {"200": 3, "429": 1}
    assert summary.retry_after_s == 4.0
    assert summary.generator_lag_ms[1] == pytest.approx(20.0)
    assert summary.generator_cpu == 0.25
    assert (summary.latency_ms.p50, summary.latency_ms.max, summary.latency_ms.answers) == (200.0, 300.0, 3)
    assert {name: group.max for name, group in summary.groups.items()} == {"short": 200.0, "long": 300.0}
    assert summary.latency_ms.of_percentile("p99.9") == summary.latency_ms.p99_9
    assert LoadSummary.model_validate_json(summary.model_dump_json()) == summary


@pytest.mark.parametrize("status", [[], [500, 0]])
def test_without_answers_there_are_no_latencies(status: list[int]) -> None:
    load = measured([1.0] * len(status), status, [""] * len(status))
    summary = LoadSummary.of(load)
    assert summary.latency_ms == Latency(p50=None, p90=None, p99=None, p99_9=None, max=None, answers=0)
    assert json.loads(summary.model_dump_json())["latency_ms"]["p99"] is None
    assert curve(load, [50, 99]) == [None, None]
