"""The search finds a known knee, and the measurement the capacity of a server that has a known one."""

import asyncio
import itertools
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from http_server import OneWorker, serving
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.errors import GateError
from bentune.bundle.files import write_json
from bentune.bundle.hardware import describe
from rollout.load import knee as module
from rollout.load.bench import Pattern
from rollout.load.generator import Body, Load, LoadTarget
from rollout.load.knee import LOWEST, RESOLUTION, Capacity, confirm, find_knee, search, trial_of
from rollout.load.slo import parse_objective
from rollout.server.server import Started
from rollout.server.target import Served

pytestmark = pytest.mark.alone

BODIES = [Body(b"{}", inputs=3)]
P90 = parse_objective("p90=100ms")


def load(
    latency_ms: float = 10.0, *, requests: int = 100, ok: int = 100, answered: int = 100, lag_ms: float = 0
) -> Load:
    """Ten seconds of a server whose every latency is the same."""
    return Load(
        started_s=np.linspace(0, 9, requests),
        latency_s=np.full(requests, latency_ms / 1000),
        status=np.array([200] * ok + [429] * (requests - ok)),
        inputs=np.ones(requests, np.int64),
        group=np.array([""] * requests),
        retry_after_s=np.full(requests, np.nan),
        lag_s=np.full(requests, lag_ms / 1000),
        seconds=10.0,
        answered=answered,
        answered_inputs=answered,
        cpu_s=0.1,
    )


@given(knee=st.floats(1e-3, 1e5), share=st.floats(0.05, 20))
def test_the_search_finds_any_knee(knee: float, share: float) -> None:
    """The ceiling that it starts from may be wrong by a lot, in either direction."""
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= knee

    found = search(holds, ceiling=knee / share)
    assert found is not None
    assert knee / (1 + RESOLUTION) <= found <= knee
    assert len(tried) < 50


@given(knee=st.floats(1, 1e4))
def test_a_disturbed_run_does_not_mislead_it(knee: float) -> None:
    """Here every first try of a rate is disturbed."""
    calls = itertools.count()
    found = search(lambda rate: next(calls) % 2 == 1 and rate <= knee, ceiling=knee)
    assert found is not None
    assert knee / (1 + RESOLUTION) <= found <= knee


def test_a_knee_out_of_reach_is_none_and_without_a_knee_it_ends() -> None:
    assert search(lambda rate: False, 100) is None
    assert search(lambda rate: True, 100) == pytest.approx(100 / LOWEST, rel=0.3)


def test_a_lucky_rate_is_not_confirmed_but_a_lower_one() -> None:
    assert confirm(lambda rate: rate <= 92, 100) == pytest.approx(100 * 0.95**2)
    assert confirm(lambda rate: False, 100) is None


@pytest.mark.parametrize(
    ("measured", "missed"),
    [
        (load(), ""),
        (load(100.0), ""),
        (load(101.0), "p90 was 101 ms"),
        (load(101.0, lag_ms=90), "p90 was 101 ms, but the generator was late by 90 ms"),
        (load(ok=98), "2.0% were not answered 200"),
        (load(ok=99), ""),
        (load(requests=100, ok=0), "100.0% were not answered 200"),
        (load(answered=90), "10 requests behind after 10 s"),
        (load(answered=96), ""),
    ],
)
def test_what_holds(measured: Load, missed: str) -> None:
    assert trial_of(measured, 10.0, P90).missed == missed


def test_the_capacity_of_a_server_with_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes 200 requests a second at most.

    By queueing theory, a 90th percentile of 40 ms is reached shortly below that.
    """
    monkeypatch.setattr(module, "MIN_STEP_S", 0.4)
    monkeypatch.setattr(module, "RESOLUTION", 0.2)
    said: list[str] = []
    soon = parse_objective("p90=40ms")
    with serving(OneWorker(0.005)) as url:
        served = Served("one worker", LoadTarget(url, timeout_s=5), None, Started(url, os.getpid(), 2.5))
        pattern = Pattern(clients=1, seconds=1.0, warmup_s=0.1)
        capacity = find_knee(served, BODIES, soon, pattern, cpu=describe(), tell=said.append)
    assert 80 <= capacity.rate_per_pod <= 225
    assert capacity.ceiling_requests_per_s == pytest.approx(200, rel=0.25)
    assert capacity.inputs_per_second == 3 * capacity.rate_per_pod
    assert soon.held(capacity.latency_ms)
    assert capacity.trials[-1].rate == capacity.rate_per_pod
    assert capacity.same_machine
    assert capacity.signal is None
    assert capacity.startup_s == 2.5
    assert capacity.memory_bytes is not None
    assert capacity.memory_bytes >= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 2
    assert len(said) == len(capacity.trials) + 2


def test_a_server_that_refuses_has_no_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOWEST", 0.7)
    monkeypatch.setattr(module, "MIN_STEP_S", 0.4)
    monkeypatch.setattr(module, "GROWTH", 0.0)
    turn = itertools.count()

    async def every_other(request: web.Request) -> web.Response:
        await asyncio.sleep(0.01)
        return web.Response(status=200 if next(turn) % 2 else 429)

    with serving(every_other) as url, pytest.raises(GateError, match=r"no rate holds p90=100ms: .* not answered 200"):
        find_knee(
            Served("refuses", LoadTarget(url, timeout_s=2), None),
            BODIES,
            P90,
            Pattern(clients=1, seconds=1.0),
            cpu=describe(),
            tell=lambda line: None,
        )


def test_an_objective_out_of_reach_is_a_gate_that_says_no() -> None:
    with serving(OneWorker(0.02)) as url:
        served = Served("slow", LoadTarget(url, timeout_s=2), None)
        with pytest.raises(GateError, match=r"slow: p50=1ms is out of reach: .* takes 2") as error:
            find_knee(
                served,
                BODIES,
                parse_objective("p50=1ms"),
                Pattern(clients=1, seconds=0.5),
                cpu=describe(),
                tell=lambda line: None,
            )
    assert error.value.gate == "p50=1ms"


def test_capacity_json_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    trial = trial_of(load(), 10.0, P90)
    capacity = Capacity(
        created_at="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
        server="s",
        model={"name": "m", "plan": {"slots": 2}},
        objective=P90,
        rate_per_pod=10.0,
        inputs_per_request=1,
        inputs_per_second=10.0,
        latency_ms=trial.latency_ms,
        signal=None,
        ceiling_requests_per_s=12.0,
        cpu=describe(),
        same_machine=True,
        trials=[trial],
    )
    write_json(tmp_path / "capacity.json", capacity)
    written = (tmp_path / "capacity.json").read_text()
    assert Capacity.model_validate_json(written) == capacity
    former = written.replace("inputs_per_request", "texts_per_request").replace("inputs_per_second", "texts_per_second")
    assert Capacity.model_validate_json(former) == capacity
