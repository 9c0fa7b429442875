"""The application behind the routes: one process, no HTTP server, and a model that computes when the test says so."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import pytest
from starlette.requests import Request
from starlette.responses import Response

from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.plan import CPU, Plan
from service import app
from service.app import Application
from service.engine import engine, memory
from service.engine.engine import Engine
from service.engine.golden import Replay
from service.engine.memory import needed_bytes
from service.engine.predictor import Predictor
from service.engine.runtime import Runtime
from service.http.requests import Incoming, rows_of
from service.settings import Settings
from service.tasks import task
from service.tasks.text import INLINE_CHARACTERS
from service.tasks.tokenizer import Tokens

SECRET = "Xq7SECRETq7X"
LONG = "cat " * 30  # the tiny model takes 24 tokens
PATIENCE_S = 20


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run `test`; what should end and does not is a failure, not a hang."""
    asyncio.run(asyncio.wait_for(test, PATIENCE_S))


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def pretend(count: int) -> None:
        monkeypatch.setattr(app, "describe", lambda: Cpu(model="a test", isa=(), cores=count))

    pretend(1)
    return pretend


class Rig:
    """An application, its metrics, and a gate: while it is shut, every batch waits in its slot's thread."""

    def __init__(
        self,
        bundle: Bundle,
        registry: prometheus_client.CollectorRegistry,
        plan: dict[str, Any],
        limits: dict[str, Any],
    ) -> None:
        changed = replace(bundle, plan=Plan(**plan))
        self.application = Application(changed, Settings(**limits))
        self.registry = registry
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[Tokens]] = []

    def start(self) -> None:
        self.application.start()
        for predictor in self.predictors if self.application.ready else []:
            predictor.logits = self._watched(predictor.logits)  # type: ignore[method-assign]

    @property
    def engine(self) -> Engine:
        assert self.application.proven is not None
        assert self.application.proven.engine is not None
        return self.application.proven.engine

    @property
    def predictors(self) -> list[Predictor]:
        return self.engine.slots

    def _watched(self, compute: Callable[[Sequence[Tokens]], Any]) -> Callable[[Sequence[Tokens]], Any]:
        def logits(batch: Sequence[Tokens]) -> Any:
            self.batches.append(list(batch))
            self.entered.set()
            assert self.gate.wait(PATIENCE_S)
            return compute(batch)

        return logits

    def count(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"bentune_{name}", labels)

    async def busy(self) -> asyncio.Task[Response]:
        """Shut the gate, and return a request that holds the only slot."""
        self.gate.clear()
        self.entered.clear()
        holder = asyncio.create_task(self.send("dog"))
        while not self.entered.is_set():
            await asyncio.sleep(0.001)
        return holder

    async def waiting(self, count: int) -> None:
        while self.application.scheduler is None or self.application.scheduler.waiting_items != count:
            await asyncio.sleep(0.001)

    async def send(self, inputs: Any, *, headers: dict[str, str] | None = None, **more: Any) -> Response:
        return await self.application.answer(Caller({"inputs": inputs} | more, headers).incoming())

    async def ask(self, inputs: Any, **more: Any) -> Any:
        response = await self.send(inputs, **more)
        assert response.status_code == 200, response.body
        return json.loads(response.body)


class Caller:
    """A client on a connection that it may close."""

    def __init__(self, body: object, headers: dict[str, str] | None = None, *, sends: bool = True) -> None:
        self.left = asyncio.Event()
        self._body = json.dumps(body).encode()
        self._headers = headers or {}
        self._unsent = sends

    async def receive(self) -> dict[str, Any]:
        if self._unsent:
            self._unsent = False
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    def incoming(self) -> Incoming:
        raw = [(name.lower().encode(), value.encode()) for name, value in self._headers.items()]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": raw, "query_string": b""}
        return Incoming(Request(scope, self.receive))


@pytest.fixture
def make(
    bundle: Bundle, registry: prometheus_client.CollectorRegistry, cores: Callable[[int], None]
) -> Callable[..., Rig]:
    def rig(plan: dict[str, Any] | None = None, *, started: bool = True, **limits: Any) -> Rig:
        made = Rig(bundle, registry, {"slots": 1, "threads": 1} | (plan or {}), limits)
        if started:
            made.start()
        return made

    return rig


def error_of(response: Response) -> tuple[int, str, str]:
    content = json.loads(response.body)
    assert set(content) == {"error", "error_type"}
    return response.status_code, content["error_type"], content["error"]


# Answers.


def test_the_answers_are_the_predictors(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        predictor = rig.predictors[0]
        texts = ["a cat near the dog", "bread and cheese", "some hammer"]
        expected = predictor.score([(text, None) for text in texts])
        for text, wanted in zip(texts, expected, strict=True):
            assert await rig.ask(text) == pytest_close(wanted)
        assert await rig.ask(texts) == [pytest_close(wanted) for wanted in expected]
        assert await rig.ask([[text] for text in texts]) == [pytest_close(wanted) for wanted in expected]
        assert [answer[0]["label"] for answer in expected] == ["animal", "food", "tool"]

    run(test())


def pytest_close(predictions: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"label": p["label"], "score": pytest.approx(p["score"], abs=1e-5)} for p in predictions]


def test_top_k_and_raw_scores(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        tokens = rig.application.task.encoder.encode("a cat", truncate=True)
        logits = rig.predictors[0].logits([tokens])[0]
        raw = await rig.ask("a cat", raw_scores=True)
        assert [p["score"] for p in raw] == pytest.approx(sorted(logits.tolist(), reverse=True))
        assert await rig.ask("a cat", raw_scores=True, top_k=2) == raw[:2]
        assert await rig.ask(["a cat"], raw_scores=True, top_k=1) == [raw[:1]]
        assert sum(p["score"] for p in await rig.ask("a cat")) == pytest.approx(1)

    run(test())


def test_answers_move_the_metrics(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        await rig.ask(["a cat", "the dog", LONG], truncate=True)
        assert rig.count("predictions_total", label="animal") == 3
        assert rig.count("predictions_total", label="food") == 0
        assert rig.count("truncated_total") == 1
        assert rig.count("confidence_count") == 3
        assert rig.count("encode_seconds_count") == 1
        assert rig.count("request_queue_seconds_count") == 3
        assert rig.count("batch_requests_sum") == 3
        assert rig.count("inference_seconds_count") == rig.count("batch_tokens_count")
        assert [rig.count("rejected_total", reason=r) for r in ("invalid", "failed")] == [0, 0]

    run(test())


# Refusals.


def test_invalid_and_too_large_requests_are_counted(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make(max_inputs=2, max_body_bytes=1024)
        assert error_of(await rig.send(3))[:2] == (422, "Validation")
        assert error_of(await rig.send(["a"] * 3))[:2] == (413, "Validation")
        assert error_of(await rig.send("a" * 2000))[:2] == (413, "Validation")
        assert error_of(await rig.send("a", headers={"X-Request-Timeout-Ms": "soon"}))[0] == 422
        assert (rig.count("rejected_total", reason="invalid"), rig.count("rejected_total", reason="too_large")) == (
            2,
            2,
        )
        assert not rig.batches

    run(test())


def test_a_text_with_too_many_tokens_is_named_by_its_place(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        status, kind, message = error_of(await rig.send(["a", LONG, "b"]))
        assert (status, kind) == (413, "Validation")
        assert message.startswith("`inputs.1` must have at most 24 tokens, this one has 32")
        assert error_of(await rig.send(LONG))[2].startswith("`inputs` must have at most 24")
        assert rig.count("rejected_total", reason="too_large") == 2

    run(test())


def test_a_text_without_any_token_is_invalid(make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks are no tokens for a tokenizer that adds no special ones.

    The model cannot take a row without any token.
    """

    async def test() -> None:
        rig = make()
        monkeypatch.setattr(rig.application.task.encoder, "encode", lambda *_, **__: Tokens([], [], truncated=False))
        assert error_of(await rig.send(["  "])) == (
            422,
            "Validation",
            "`inputs.0` has no tokens: it must hold more than blanks",
        )

    run(test())


def test_a_full_queue_is_answered_429_with_a_whole_number_of_seconds(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make(queue_inputs=2)
        holder = await rig.busy()
        waiting = asyncio.create_task(rig.send(["cat", "cow"]))
        await rig.waiting(2)
        refused = await rig.send("bird")
        assert error_of(refused)[:2] == (429, "Overloaded")
        assert refused.headers["retry-after"] == "1"
        assert rig.count("rejected_total", reason="overloaded") == 1
        rig.gate.set()
        assert [(await holder).status_code, (await waiting).status_code] == [200, 200]

    run(test())


def test_a_long_text_that_will_be_cut_is_not_refused_for_its_length(make: Callable[..., Rig]) -> None:
    """The body would hold more tokens than the queue has room for.

    The text that is left after the cut does not.
    """

    async def test() -> None:
        rig = make(queue_tokens=64)
        holder = await rig.busy()
        first = asyncio.create_task(rig.send("cat"))
        await rig.waiting(1)
        # 504 bytes are counted as 63 tokens, beside 3 that wait; 24 are left when it is cut.
        long = rig.send("cat " * 126, headers={"content-length": "504"}, truncate=True)
        second = asyncio.create_task(long)
        await rig.waiting(2)
        rig.gate.set()
        assert [(await one).status_code for one in (holder, first, second)] == [200, 200, 200]

    run(test())


def test_more_than_the_queue_ever_holds_is_answered_413(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make(queue_inputs=2)
        assert error_of(await rig.send(["a", "b", "c"]))[:2] == (413, "Validation")

    run(test())


def test_the_callers_deadline_ends_the_wait(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        holder = await rig.busy()
        late = await rig.send("cat", headers={"X-Request-Timeout-Ms": "20"})
        assert error_of(late)[:2] == (504, "Timeout")
        assert rig.application.scheduler is not None
        assert rig.application.scheduler.waiting_items == 0
        rig.gate.set()
        assert (await holder).status_code == 200
        assert len(rig.batches) == 1, "the late one was never computed"
        assert rig.count("rejected_total", reason="deadline") == 1

    run(test())


def test_the_servers_deadline_ends_the_wait_however_much_the_caller_asks_for(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make(request_timeout_ms=30)
        rig.gate.clear()
        late = await rig.send("cat", headers={"X-Request-Timeout-Ms": "60000"})
        assert error_of(late)[:2] == (504, "Timeout")
        rig.gate.set()

    run(test())


def test_a_body_that_does_not_come_is_not_waited_for(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make(request_timeout_ms=30)
        response = await rig.application.answer(Caller({}, sends=False).incoming())
        assert error_of(response) == (504, "Timeout", "the deadline passed before the body arrived")
        assert rig.count("rejected_total", reason="deadline") == 1

    run(test())


def test_the_deadline_counts_from_the_arrival_not_from_the_body(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        assert rig.application.scheduler is not None
        caller = Caller({"inputs": "cat"}, {"X-Request-Timeout-Ms": "5000"})
        prompt, submit = caller.receive, rig.application.scheduler.submit
        asked_for_body: list[float] = []
        deadlines: list[float] = []

        async def late() -> dict[str, Any]:
            asked_for_body.append(time.monotonic())
            await asyncio.sleep(0.01)
            return await prompt()

        async def watched(items: Any, *, deadline: float) -> Any:
            deadlines.append(deadline)
            return await submit(items, deadline=deadline)

        caller.receive = late  # type: ignore[method-assign]
        rig.application.scheduler.submit = watched  # type: ignore[method-assign]
        assert (await rig.application.answer(caller.incoming())).status_code == 200
        assert asked_for_body[0] + 4 < deadlines[0] <= asked_for_body[0] + 5

    run(test())


def test_texts_are_forgotten_once_they_are_tokens(make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded in tokens, and megabytes of text may be cut to a few."""

    async def test() -> None:
        rig = make()
        kept: list[Any] = []

        def watched(request: Any, **more: Any) -> Any:
            rows, single = rows_of(request, **more)
            kept.extend([request, rows])
            return rows, single

        monkeypatch.setattr(task, "rows_of", watched)
        holder = await rig.busy()
        waiting = asyncio.create_task(rig.ask("cat"))
        await rig.waiting(1)
        request, rows = kept[-2:]
        assert (request.inputs, rows) == ("", [])
        rig.gate.set()
        assert (await holder).status_code == 200
        await waiting

    run(test())


# Clients that leave.


def test_a_client_that_leaves_while_it_waits_costs_no_compute(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        holder = await rig.busy()
        caller = Caller({"inputs": ["cat", "cow"]})
        answer = asyncio.create_task(rig.application.answer(caller.incoming()))
        await rig.waiting(2)
        caller.left.set()
        assert error_of(await answer)[:2] == (499, "Cancelled")
        await rig.waiting(0)
        assert rig.count("rejected_total", reason="cancelled") == 1
        rig.gate.set()
        assert (await holder).status_code == 200
        assert [len(batch) for batch in rig.batches] == [1]

    run(test())


def test_a_client_that_leaves_while_it_computes_frees_the_slot_for_the_next(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        rig.gate.clear()
        caller = Caller({"inputs": "cat"})
        answer = asyncio.create_task(rig.application.answer(caller.incoming()))
        while not rig.entered.is_set():
            await asyncio.sleep(0.001)
        caller.left.set()
        assert error_of(await answer)[0] == 499
        rig.gate.set()
        assert (await rig.ask("dog"))[0]["label"] == "animal"

    run(test())


def test_a_client_that_leaves_while_it_sends_is_counted(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        caller = Caller({}, sends=False)
        caller.left.set()
        assert error_of(await rig.application.answer(caller.incoming()))[0] == 499
        assert rig.count("rejected_total", reason="cancelled") == 1

    run(test())


def test_a_cancelled_handler_takes_its_work_back(make: Callable[..., Rig]) -> None:
    """As BentoML's own time limit cancels it."""

    async def test() -> None:
        rig = make()
        before = asyncio.all_tasks()
        holder = await rig.busy()
        answer = asyncio.create_task(rig.send("cat"))
        await rig.waiting(1)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        await rig.waiting(0)
        rig.gate.set()
        assert (await holder).status_code == 200
        assert asyncio.all_tasks() == before, "nothing is left behind"

    run(test())


def test_an_answered_request_leaves_no_task_behind(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig, before = make(), asyncio.all_tasks()
        await rig.ask("cat")
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    run(test())


# Failures.


def test_logits_that_are_no_numbers_fail_alone(make: Callable[..., Rig], caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        rig = make()
        bad = rig.application.task.encoder.encode(f"{SECRET} cat", truncate=True).ids
        honest = rig.predictors[0].logits

        def logits(batch: Sequence[Tokens]) -> Any:
            found = np.array(honest(batch))
            found[[row.ids == bad for row in batch]] = np.nan
            return found

        rig.predictors[0].logits = logits  # type: ignore[method-assign]
        holder = await rig.busy()
        answers = [asyncio.create_task(rig.send(text)) for text in ("dog", f"{SECRET} cat", "bread")]
        await rig.waiting(3)
        rig.gate.set()
        statuses = [(await answer).status_code for answer in answers]
        assert statuses == [200, 500, 200]
        assert error_of(await answers[1]) == (500, "Backend", "the model raised FloatingPointError on this input")
        assert (await holder).status_code == 200
        assert rig.count("rejected_total", reason="failed") == 1

    with caplog.at_level(logging.INFO, logger="bentoml.bentune"):
        logging.getLogger("bentoml").propagate = True
        run(test())
    assert "inference failed" in caplog.text
    assert SECRET not in caplog.text


def test_an_unexpected_error_is_an_answer_of_the_table_and_its_message_is_not_logged(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        rig = make()

        def broken(text: str, *_: object, **__: object) -> Tokens:
            raise RuntimeError(f"cannot encode {text}")

        monkeypatch.setattr(rig.application.task.encoder, "encode", broken)
        status, kind, message = error_of(await rig.send(SECRET))
        assert (status, kind) == (500, "Backend")
        assert SECRET not in message
        assert rig.count("rejected_total", reason="failed") == 1

    with caplog.at_level(logging.INFO, logger="bentoml.bentune"):
        logging.getLogger("bentoml").propagate = True
        run(test())
    assert "RuntimeError" in caplog.text
    assert "in broken" in caplog.text, "where it was raised"
    assert SECRET not in caplog.text


# Start and stop.


def test_before_its_start_it_is_not_ready(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make(started=False)
        assert not rig.application.ready
        assert error_of(await rig.send("cat"))[:2] == (503, "Unhealthy")
        assert rig.count("rejected_total", reason="not_ready") == 1
        await rig.application.stop()

    run(test())


def test_golden_rows_with_other_scores_keep_it_from_ever_being_ready(
    bundle: Bundle, registry: prometheus_client.CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [
        row.model_copy(update={"scores": {key: [0.0, 0.0, 0.0] for key in row.scores}}) if n in (2, 5) else row
        for n, row in enumerate(bundle.golden)
    ]

    async def test() -> None:
        application = Application(replace(bundle, golden=wrong), Settings())
        application.start()
        assert not application.ready
        response = await application.answer(Caller({"inputs": "cat"}).incoming())
        assert error_of(response)[:2] == (503, "Unhealthy")
        golden = application.info()["golden"]
        assert (golden["rows"], golden["failed"]) == (12, 2)
        assert golden["largest_difference"] > 0.1

    with caplog.at_level(logging.INFO, logger="bentoml.bentune"):
        logging.getLogger("bentoml").propagate = True
        run(test())
    assert "2 of 12 golden rows (numbers [2, 5]) differ" in caplog.text


@pytest.mark.parametrize("threads", [1, 2])
def test_every_session_that_will_serve_is_replayed(
    threads: int, make: Callable[..., Rig], cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(4)
    rig = make({"slots": 2, "threads": threads}, started=False)
    replayed: list[Predictor] = []

    def replay(predictor: Predictor, golden: list[object], key: str) -> Replay:
        assert (len(golden), key) == (12, "fp32/CPUExecutionProvider")
        replayed.append(predictor)
        return Replay(rows=12, largest_difference=0.0, failed=[3] if len(replayed) == 2 else [])

    monkeypatch.setattr(engine, "replay", replay)
    rig.application.start()
    # The slots share a session unless each has threads of its own; the last is the one with every core.
    given = [session_threads(predictor) for predictor in replayed]
    assert given == ([1, 2] if threads == 1 else [2, 2, 4])
    assert not rig.application.ready, "one of them failed"


def session_threads(predictor: Predictor) -> int:
    threads: int = predictor.session._session.get_session_options().intra_op_num_threads
    return threads


@pytest.mark.parametrize(
    ("plan", "visible", "slots", "threads", "wide"),
    [
        ({"slots": None, "threads": None}, 1, 1, 1, None),
        ({"slots": None, "threads": None}, 4, 4, 1, 4),
        ({"slots": 2, "threads": None}, 4, 2, 1, 2),
        ({"slots": None, "threads": 2}, 4, 2, 2, 4),
        ({"slots": 1, "threads": 4}, 4, 1, 4, None),
        ({"slots": 2, "threads": 3}, 4, 1, 3, None),
        ({"slots": 8, "threads": None}, 2, 2, 1, 2),
        ({"slots": 2, "threads": 2}, 2, 1, 2, None),
    ],
)
def test_slots_and_threads_follow_the_plan_within_the_cores(
    make: Callable[..., Rig],
    cores: Callable[[int], None],
    plan: dict[str, int | None],
    visible: int,
    slots: int,
    threads: int,
    wide: int | None,
) -> None:
    cores(visible)
    rig = make(plan)
    assert [session_threads(predictor) for predictor in rig.predictors] == [threads] * slots
    shown = rig.application.info()["plan"]
    assert (shown["slots"], shown["threads"], shown["fallbacks"]) == (slots, threads, {})
    assert (rig.engine.wide and session_threads(rig.engine.wide)) == wide


def test_info_tells_what_the_memory_limit_left_of_the_queue(
    make: Callable[..., Rig], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = needed_bytes(bundle, Runtime("fp32", CPU, 1, 1, 1024)) + 512 * 65_536 + 65_536 * 48
    monkeypatch.setattr(memory, "memory_limit_bytes", lambda root: limit)
    rig = make()
    shown = rig.application.info()["limits"]
    assert (shown["queue_inputs"], shown["queue_tokens"]) == (pytest.approx(512, abs=1), pytest.approx(65_536, abs=70))


def test_info_tells_what_is_served(make: Callable[..., Rig], bundle: Bundle) -> None:
    rig = make({"token_budget": 77, "padding_bound": 0.5}, max_inputs=5, max_body_bytes=2048, request_timeout_ms=1500)
    info = rig.application.info()
    manifest = bundle.manifest
    assert info | {"evidence": None, "golden": None} == {
        "name": manifest.name,
        "version": manifest.version,
        "digest": bundle.digest,
        "content": bundle.content,
        "parent": None,
        "verdict": None,
        "task": "text-classification",
        "inputs": "text",
        "labels": ["animal", "food", "tool"],
        "multi_label": False,
        "created_at": manifest.created_at,
        "ready": True,
        "limits": {"max_tokens": 24, "max_inputs": 5, "max_body_bytes": 2048, "request_timeout_ms": 1500}
        | {"queue_inputs": 1024, "queue_tokens": 131_072},
        "plan": {
            "variant": "fp32",
            "provider": "CPUExecutionProvider",
            "slots": 1,
            "threads": 1,
            "token_budget": 77,
            "padding_bound": 0.5,
            "measured_on": None,
            "fallbacks": {},
        },
        "evidence": None,
        "golden": None,
        "model_id": manifest.name,
        "model_sha": bundle.digest,
        "max_input_length": 24,
        "max_batch_tokens": 77,
        "max_client_batch_size": 5,
    }
    evidence = bundle.evidence()
    assert info["evidence"]["accuracy"] == evidence["evaluation"]["tuned"]["accuracy"]
    assert info["evidence"]["accuracy_before_tuning"] == evidence["evaluation"]["base"]["accuracy"]
    assert set(info["evidence"]["parity"]) == {"merge", "export", "batch"}
    assert info["golden"]["rows"] == 12
    assert (info["golden"]["failed"], info["golden"]["largest_difference"] < 1e-5) == (0, True)
    labels = {"name": manifest.name, "version": manifest.version, "task": manifest.task, "variant": "fp32"}
    assert rig.count("model_info", **labels, provider="CPUExecutionProvider", digest=bundle.digest) == 1


def test_stop_finishes_what_was_accepted_and_refuses_the_rest(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make()
        holder = await rig.busy()
        accepted = [asyncio.create_task(rig.send(text)) for text in ("cat", "cow")]
        await rig.waiting(2)
        stop = asyncio.create_task(rig.application.stop())
        await asyncio.sleep(0)
        assert error_of(await rig.send("late"))[:2] == (503, "Unhealthy")
        assert rig.count("rejected_total", reason="shutting_down") == 1
        rig.gate.set()
        await stop
        assert [(await task).status_code for task in (holder, *accepted)] == [200, 200, 200]

    run(test())


def test_stop_does_not_wait_for_ever(make: Callable[..., Rig]) -> None:
    async def test() -> None:
        rig = make(drain_timeout_ms=20)
        holder = await rig.busy()
        waiting = asyncio.create_task(rig.send("cat"))
        await rig.waiting(1)
        await rig.application.stop()
        assert [error_of(await task)[0] for task in (holder, waiting)] == [503, 503]
        rig.gate.set()

    run(test())


# Tokenizing.


def test_much_text_is_tokenized_beside_the_event_loop_and_little_on_it(
    make: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        rig = make()
        threads: list[int] = []
        real = rig.application.task.encoder.encode

        def encode(*arguments: Any, **more: Any) -> Tokens:
            threads.append(threading.get_ident())
            return real(*arguments, **more)

        monkeypatch.setattr(rig.application.task.encoder, "encode", encode)
        await rig.ask("a" * INLINE_CHARACTERS, truncate=True)
        assert threads == [threading.get_ident()]
        await rig.ask(["a" * INLINE_CHARACTERS, "b"], truncate=True)
        assert threads[1:] == [threads[1]] * 2
        assert threads[1] != threading.get_ident()
        refused = await rig.send(["a " * INLINE_CHARACTERS, "b"])
        assert error_of(refused)[0] == 413

    run(test())
