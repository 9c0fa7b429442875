"""Over real HTTP, a server with more to do than it can: refusals, deadlines, clients that leave, and its shutdown.

The slow bundle has one slot, and works on a text of SLOW words for as long as the test needs to look around.
"""

import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.alone

SLOW = "[MASK] " * 20  # about a second of one core; never more than the 22 words that the model takes
QUEUE = {"BENTUNE_QUEUE_INPUTS": "3"}


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture(scope="module")
def slow_server(serve: Callable[..., AbstractContextManager[Any]], slow_tag: str) -> Iterator[Any]:
    with serve(".", "--arg", f"model={slow_tag}", env=QUEUE) as server:
        server.until_status("/readyz", 200)
        yield server


@pytest.fixture
def slow(slow_server: Any) -> Any:
    """The server, at rest."""
    slow_server.until(lambda: load(slow_server) == (0, 0), "the server is at rest")
    return slow_server


def load(server: Any) -> tuple[float, float]:
    """Slots that compute, and inputs that wait."""
    return server.metric("bentune_slots_busy"), server.metric("bentune_queue_requests")


def computed(server: Any) -> float:
    """Inputs that went to a slot since the start."""
    return float(server.metric("bentune_batch_requests_sum"))


def send(pool: ThreadPoolExecutor, server: Any, inputs: Any, **headers: str) -> "Future[httpx.Response]":
    """Ask in a thread."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return pool.submit(server.predict, inputs, headers=named)


def occupy(pool: ThreadPoolExecutor, server: Any, *waiting: str) -> "list[Future[httpx.Response]]":
    """Fill the slot with one slow request and let the `waiting` texts wait behind it."""
    futures = [send(pool, server, SLOW)]
    server.until(lambda: load(server)[0] == 1, "the slot is taken")
    futures += [send(pool, server, text) for text in waiting]
    server.until(lambda: load(server)[1] == len(waiting), f"{len(waiting)} inputs wait")
    return futures


def statuses(futures: "list[Future[httpx.Response]]") -> list[int]:
    return [future.result(60).status_code for future in futures]


def test_the_slow_model_gives_the_tiny_models_scores(slow: Any, server: Any) -> None:
    for text in ("a cat", "[MASK] bread"):
        theirs = {p["label"]: p["score"] for p in server.predict(text).json()}
        assert {p["label"]: p["score"] for p in slow.predict(text).json()} == pytest.approx(theirs, abs=1e-5)


def test_a_full_queue_is_refused_and_who_was_accepted_is_answered(slow: Any, pool: ThreadPoolExecutor) -> None:
    before = slow.metric("bentune_rejected_total", reason="overloaded")
    accepted = occupy(pool, slow, "a cat", "a cat", "a cat")
    refused = [send(pool, slow, "a dog") for _ in range(5)]
    for future in refused:
        answer = future.result(60)
        assert answer.status_code == 429
        assert answer.json()["error_type"] == "Overloaded"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert statuses(accepted) == [200] * 4
    assert slow.metric("bentune_rejected_total", reason="overloaded") == before + 5


def test_a_deadline_ends_the_wait_and_saves_the_compute(slow: Any, pool: ThreadPoolExecutor) -> None:
    before = computed(slow), slow.metric("bentune_rejected_total", reason="deadline")
    holder = occupy(pool, slow)
    for milliseconds in ("1", "40"):
        late = send(pool, slow, "a dog", X_Request_Timeout_Ms=milliseconds).result(60)
        assert (late.status_code, late.json()["error_type"]) == (504, "Timeout")
    assert statuses(holder) == [200]
    slow.until(lambda: load(slow) == (0, 0), "the server is at rest")
    assert computed(slow) == before[0] + 1
    assert slow.metric("bentune_rejected_total", reason="deadline") == before[1] + 2


def test_a_client_that_leaves_while_it_waits_costs_no_compute(slow: Any, pool: ThreadPoolExecutor) -> None:
    before = computed(slow), slow.metric("bentune_rejected_total", reason="cancelled")
    tokens = slow.metric("bentune_batch_tokens_sum")
    holder = occupy(pool, slow)
    with raw(slow) as leaver:
        leaver.sendall(request(b'{"inputs": ["a dog", "a cow"]}'))
        slow.until(lambda: load(slow)[1] == 2, "its inputs wait")
    slow.until(lambda: load(slow)[1] == 0, "its inputs left the queue")
    slow.until(lambda: slow.metric("bentune_rejected_total", reason="cancelled") == before[1] + 1, "it is counted")
    assert statuses(holder) == [200]
    slow.until(lambda: load(slow) == (0, 0), "the server is at rest")
    assert computed(slow) == before[0] + 1
    assert slow.metric("bentune_batch_tokens_sum") == tokens + 22, "the holder's 20 words and two special tokens"


def test_a_client_that_leaves_while_it_sends_is_counted(slow: Any) -> None:
    before = slow.metric("bentune_rejected_total", reason="cancelled")
    with raw(slow) as leaver:
        leaver.sendall(request(b'{"inputs": "a dog"}')[:-5])
    slow.until(lambda: slow.metric("bentune_rejected_total", reason="cancelled") == before + 1, "it is counted")


def test_at_shutdown_what_was_accepted_is_answered_and_the_rest_refused(
    serve: Callable[..., AbstractContextManager[Any]], slow_tag: str, pool: ThreadPoolExecutor
) -> None:
    with serve(".", "--arg", f"model={slow_tag}", env=QUEUE) as server:
        server.until_status("/readyz", 200)
        accepted = occupy(pool, server, "a cat", "a cat", SLOW)
        with raw(server) as idle:
            # Once it was answered, the server knows the connection.
            idle.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 200")
            server.process.send_signal(signal.SIGTERM)
            while idle.recv(4096):  # until the server closes it: its shutdown has begun
                pass
        assert not accepted[-1].done(), "it began while the last one waited"
        with pytest.raises(httpx.TransportError):
            server.predict("late")
        assert statuses(accepted) == [200] * 4
        assert server.process.wait(30) == 0
        assert "Completed async cleanup hook: stop" in server.printed()
        assert "Traceback" not in server.printed()


def raw(server: Any) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def request(body: bytes) -> bytes:
    return b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
