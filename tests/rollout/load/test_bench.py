"""One server is measured, two are compared fairly, and a server that is not there is said to be so."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest
from aiohttp import web
from http_server import OneWorker, serving

from bentune.bundle.errors import BentuneError
from bentune.bundle.hardware import describe
from rollout.load import bench as module
from rollout.load.bench import BenchReport, Pattern, compare, judge, measure, now, ratios, require_answer
from rollout.load.generator import Body, LoadTarget
from rollout.load.slo import parse_objective
from rollout.load.tables import bench_table, warnings
from rollout.server.target import Served

pytestmark = pytest.mark.alone

BODIES = [Body(b"%d" % number) for number in range(10)]


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUND_WARMUP_S", 0.1)


class Bar:
    """A progress bar that remembers."""

    def __init__(self) -> None:
        self.told: list[int] = []

    @contextlib.contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield self.told.append


def served(url: str, label: str = "") -> Served:
    return Served(label or url, LoadTarget(url, timeout_s=2), None)


def test_one_server_is_measured() -> None:
    bar = Bar()
    with serving(OneWorker(0.01)) as url:
        rounds = measure(served(url), BODIES, Pattern(clients=2, seconds=1.0, warmup_s=0.2), bar)
    measured = rounds.measured()
    assert measured.summary.requests_per_s == pytest.approx(100, rel=0.25)
    assert measured.model is None
    assert measured.inside is None
    assert bar.told == sorted(bar.told)
    assert judge(parse_objective("p90=1s"), measured).held
    assert not judge(parse_objective("p50=1ms"), measured).held


@pytest.mark.parametrize("load", [{"clients": 3}, {"rate": 30.0}])
def test_comparing_finds_the_server_that_is_twice_as_slow(load: dict[str, float]) -> None:
    fast, slow = OneWorker(0.01), OneWorker(0.02)
    with serving(fast) as one, serving(slow) as two:
        rounds = compare(served(one), served(two), BODIES, Pattern(seconds=1.0, **load), Bar())  # type: ignore[arg-type]
    found = ratios(*rounds)
    latency = found["p50"]
    assert latency.value is not None
    assert latency.low is not None
    assert latency.high is not None
    if "clients" in load:
        assert found["requests_per_s"].value == pytest.approx(2, rel=0.25)
        assert latency.value == pytest.approx(0.5, rel=0.25)
    else:
        assert found["requests_per_s"].value == pytest.approx(1, rel=0.15)
        # Waiting comes on top of the service: at 60% of its capacity the slow one is more than twice as slow.
        assert latency.value < 0.65
        # The same requests at the same times: warm-ups included, for the arrivals are chosen in advance.
        assert fast.bodies == slow.bodies
    assert latency.low <= latency.high
    assert [len(each.loads) for each in rounds] == [2, 2]


def test_rounds_take_turns_both_ways() -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[web.Request], object]:
        async def answer(request: web.Request) -> web.Response:
            if request.method == "POST" and (not order or order[-1] != name):
                order.append(name)
            await asyncio.sleep(0.005)
            return web.Response()

        return answer

    with serving(named("a")) as one, serving(named("b")) as two:  # type: ignore[arg-type]
        compare(served(one), served(two), BODIES, Pattern(clients=1, seconds=0.5), Bar())
    # A B, B A: the two rounds of B in the middle are one.
    assert order == ["a", "b", "a"]


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with pytest.raises(BentuneError, match=r"http://127.0.0.1:1/predict: no answer; is the server up") as error:
        require_answer(served("http://127.0.0.1:1"), BODIES[0])
    assert error.value.exit_code == 3


@pytest.mark.parametrize(("status", "fine"), [(200, True), (429, True), (503, True), (404, False), (422, False)])
def test_a_request_that_is_not_taken_stops_the_bench(status: int, fine: bool) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    with serving(answer) as url, contextlib.nullcontext() if fine else pytest.raises(BentuneError, match=str(status)):
        require_answer(served(url), BODIES[0])


def test_no_answer_at_all_is_an_error_with_the_counts() -> None:
    async def refuse(request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response(status=429)

    with serving(refuse) as url:
        rounds = measure(served(url, "mine"), BODIES, Pattern(clients=1, seconds=0.5), Bar())
    with pytest.raises(BentuneError, match=r"mine: not one request was answered 200 \(\d+ times 429\)"):
        rounds.measured()


def test_the_report_is_typed_and_its_table_has_what_was_asked() -> None:
    with serving(OneWorker(0.005)) as url:
        pattern = Pattern(clients=1, seconds=0.5)
        rounds = measure(served(url), BODIES, pattern, Bar())
    report = BenchReport(
        created_at=now(),
        pattern=pattern,
        inputs_per_request=1,
        bodies=len(BODIES),
        servers=[rounds.measured()],
        cpu=describe(),
    )
    assert BenchReport.model_validate_json(report.model_dump_json()) == report
    table = bench_table(report)
    names = list(table.columns[0].cells)
    assert {"requests/s", "inputs/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "statuses"} <= set(names)
    assert any("too few for p99.9" in warning for warning in warnings(report))
