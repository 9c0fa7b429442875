"""The load generator against real servers whose behaviour is known."""

import asyncio
import time

import numpy as np
import pytest
from aiohttp import web
from http_server import OneWorker, serving

from bentune.bundle.errors import InputError
from rollout.load.generator import NO_ANSWER, Body, Load, LoadTarget, closed_loop, open_loop, run

pytestmark = pytest.mark.alone

BODIES = [Body(b'{"inputs": "one"}'), Body(b'{"inputs": ["two", "texts"]}', inputs=2, group="long")]


async def at_once(request: web.Request) -> web.Response:
    await request.read()
    return web.json_response([])


class Stalling:
    """Answers at once, but the requests that come within `stall_s` after the first `after_s` wait for its end."""

    def __init__(self, after_s: float, stall_s: float) -> None:
        self.after_s, self.stall_s, self.first = after_s, stall_s, 0.0

    async def __call__(self, request: web.Request) -> web.Response:
        await request.read()
        now = time.monotonic()
        self.first = self.first or now
        end = self.first + self.after_s + self.stall_s
        if end - self.stall_s <= now < end:
            await asyncio.sleep(end - now)
        return web.json_response([])


def measured(latency_s: list[float], status: list[int] | None = None, **more: object) -> Load:
    """A load as if it had been measured."""
    count = len(latency_s)
    values = {
        "started_s": np.arange(count) / 100,
        "latency_s": np.array(latency_s),
        "status": np.array(status or [200] * count),
        "inputs": np.ones(count, np.int64),
        "group": np.array([""] * count),
        "retry_after_s": np.full(count, np.nan),
        "lag_s": np.zeros(count),
        "seconds": 1.0,
        "answered": count,
        "answered_inputs": count,
        "cpu_s": 0.0,
    }
    return Load(**(values | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("clients", [1, 7])
def test_a_closed_loop_keeps_exactly_its_clients_under_way(clients: int) -> None:
    worker = OneWorker(0.02)
    with serving(worker) as url:
        load = run(closed_loop(LoadTarget(url), BODIES, clients=clients, seconds=0.8, warmup_s=0.2))
    assert worker.most_open == clients
    assert load.statuses == {200: load.requests}
    assert load.requests_per_s == pytest.approx(50, rel=0.25)
    # Little's law: those under way are the throughput times the latency.
    assert load.requests_per_s * load.latency_s.mean() == pytest.approx(clients, rel=0.25)
    assert load.started_s.min() >= 0
    assert load.seconds == 0.8


def test_bodies_go_out_in_their_order_over_and_over() -> None:
    worker = OneWorker(0.0)
    with serving(worker) as url:
        load = run(closed_loop(LoadTarget(url), BODIES, clients=1, seconds=5, requests=5))
    assert worker.bodies == [BODIES[n % 2].content for n in range(5)]
    assert load.inputs.tolist() == [1, 2, 1, 2, 1]
    assert load.group.tolist() == ["", "long", "", "long", ""]
    assert load.inputs_per_s == pytest.approx(load.requests_per_s * 7 / 5)
    assert load.seconds < 5
    assert load.answered == 5


def test_the_warm_up_is_not_counted_but_by_requests_that_ended_after_it() -> None:
    with serving(OneWorker(0.1)) as url:
        load = run(closed_loop(LoadTarget(url), BODIES[:1], clients=4, seconds=1.0, warmup_s=0.5))
    # The four under way at the end of the warm-up make up for the four under way at the end.
    assert load.answered == pytest.approx(10, abs=1)


def test_an_open_loop_shows_a_stall_that_a_closed_loop_hides() -> None:
    with serving(Stalling(0.3, 0.5)) as url:
        hidden = run(closed_loop(LoadTarget(url), BODIES, clients=1, seconds=1.5))
    with serving(Stalling(0.3, 0.5)) as url:
        shown = run(open_loop(LoadTarget(url), BODIES, rate=200, seconds=1.5))
    assert hidden.percentiles([99])[0] < 0.1
    assert hidden.latency_s.max() > 0.4
    # A third of the arrivals fell into the stall, and waited a quarter of a second on average.
    assert shown.percentiles([99])[0] > 0.4
    assert (shown.latency_s > 0.05).mean() == pytest.approx(0.45 / 1.5, abs=0.1)


def test_an_open_loop_counts_from_when_a_request_was_meant_to_start() -> None:
    """A server with one worker gets twice its capacity, on one connection.

    The wait grows by a second every two seconds.
    """
    with serving(OneWorker(0.02)) as url:
        load = run(open_loop(LoadTarget(url), BODIES, rate=100, seconds=1.5, seed=3))
    assert load.requests == pytest.approx(150, rel=0.3)
    assert load.requests_per_s == pytest.approx(50, rel=0.1)
    assert load.latency_s[load.started_s.argmax()] == pytest.approx(load.requests * 0.02 - 1.5, abs=0.3)
    assert load.lag_s.max() < 0.2


def test_statuses_and_retry_after_are_counted() -> None:
    worker = OneWorker(0.3, room=1)
    with serving(worker) as url:
        load = run(closed_loop(LoadTarget(url), BODIES, clients=4, seconds=0.5))
    assert set(load.statuses) == {200, 429}
    assert load.requests == sum(load.statuses.values())
    assert set(load.retry_after_s[load.status == 429]) == {3.0}
    assert np.isnan(load.retry_after_s[load.ok]).all()


@pytest.mark.parametrize("header", ["soon", "-1", "1e9", "9" * 400, "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_strange_retry_after_is_none(header: str) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": header})

    with serving(refuse) as url:
        load = run(closed_loop(LoadTarget(url), BODIES, clients=1, seconds=1, requests=1))
    assert load.statuses == {503: 1}
    assert np.isnan(load.retry_after_s).all()


def test_no_answer_in_time_and_no_server_are_counted_and_never_spin() -> None:
    with serving(OneWorker(5.0)) as url:
        late = run(closed_loop(LoadTarget(url, timeout_s=0.1), BODIES, clients=2, seconds=0.4))
    gone = run(closed_loop(LoadTarget(url), BODIES, clients=1, seconds=0.5))
    for load in (late, gone):
        assert set(load.statuses) == {NO_ANSWER}
        assert load.requests <= 12
        assert load.requests_per_s == 0
        assert np.isnan(load.percentiles([50])).all()


def test_a_long_answer_is_read_and_a_redirect_is_not_followed() -> None:
    async def long(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 3_000_000)

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

    for answer, status in ((long, 200), (elsewhere, 307)):
        with serving(answer) as url:
            load = run(closed_loop(LoadTarget(url), BODIES, clients=1, seconds=5, requests=3))
        assert load.statuses == {status: 3}


def test_the_deadline_and_other_headers_are_sent() -> None:
    seen: list[str | None] = []

    async def remember(request: web.Request) -> web.Response:
        seen.extend([request.headers.get("X-Request-Timeout-Ms"), request.headers["Content-Type"], request.path])
        return web.Response()

    with serving(remember) as url:
        target = LoadTarget(url + "/", "/v1/classify", headers={"X-Request-Timeout-Ms": "250"})
        run(closed_loop(target, BODIES, clients=1, seconds=1, requests=1))
    assert seen == ["250", "application/json", "/v1/classify"]


def test_percentiles_are_numpys_and_of_answers_only() -> None:
    latency = np.random.default_rng(0).exponential(size=999)
    load = measured([*latency, 99.0], [200] * 999 + [500])
    percents = [50.0, 90.0, 99.0, 99.9]
    assert load.percentiles(percents) == [np.percentile(latency, p, method="higher") for p in percents]
    assert set(load.percentiles(percents)) <= set(latency)


def test_percentiles_of_a_group() -> None:
    load = measured([1.0, 2.0, 3.0], group=np.array(["short", "long", "short"]))
    assert load.percentiles([100], "short") == [3.0]
    assert load.percentiles([100], "long") == [2.0]
    assert np.isnan(load.percentiles([100], "other")).all()


def test_joined_windows_add_up() -> None:
    whole = Load.joined([measured([0.1] * 30), measured([0.3] * 10)])
    assert (whole.requests, whole.seconds, whole.requests_per_s) == (40, 2.0, 20.0)
    assert whole.started_s[30] == 1.0
    assert whole.percentiles([70, 80]) == [0.1, 0.3]


def test_progress_is_told_the_seconds() -> None:
    told: list[float] = []
    with serving(at_once) as url:
        run(open_loop(LoadTarget(url), BODIES, rate=20, seconds=0.5, warmup_s=0.3, progress=told.append))
    assert told == sorted(told)
    assert told[0] < 0.1
    assert told[-1] > 0.4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rate": 0.0, "seconds": 1.0}, "rate is 0.0"),
        ({"rate": float("nan"), "seconds": 1.0}, "rate is nan"),
        ({"rate": 1.0, "seconds": -1.0}, "seconds is -1.0"),
        ({"rate": 1.0, "seconds": 1.0, "bodies": []}, "nothing to send"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], words: str) -> None:
    given: dict[str, object] = {"bodies": BODIES} | arguments
    with pytest.raises(InputError, match=words):
        run(open_loop(LoadTarget("http://127.0.0.1:1"), **given))  # type: ignore[arg-type]
