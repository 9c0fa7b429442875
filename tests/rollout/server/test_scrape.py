"""The server's own numbers are read from what it says, and a stranger's answer does no harm."""

import asyncio
import json

import pytest
from aiohttp import web
from http_server import serving

from rollout.server import scrape as module
from rollout.server.scrape import MetricsReading, between, parse, read_info, read_metrics, sample, signal_of, slots_of

PAGE = b"""# HELP bentune_batch_tokens Padded tokens in a batch
# TYPE bentune_batch_tokens histogram
bentune_batch_tokens_bucket{le="+Inf"} 10.0
bentune_batch_tokens_count 10.0
bentune_batch_tokens_sum 4000.0
bentune_batch_requests_count 10.0
bentune_batch_requests_sum 35.0
bentune_batch_padding_ratio_count 10.0
bentune_batch_padding_ratio_sum 0.5
bentune_request_queue_seconds_count 35.0
bentune_request_queue_seconds_sum 0.7
bentune_inference_seconds_count 10.0
bentune_inference_seconds_sum 2.0
bentune_rejected_total{reason="overloaded"} 5.0
bentune_rejected_total{reason="deadline"} 0.0
bentune_slots_busy 1.0
bentune_queue_tokens 300.0
python_gc_objects_collected_total{generation="0"} 1.0
"""


def test_what_happened_between_readings() -> None:
    start = MetricsReading(100.0, {"bentune_batch_tokens_count": 0.0}, {})
    inside = between([(start, parse(PAGE, 102.0))], slots=2)
    assert inside is not None
    assert inside.rejected == {"overloaded": 5}
    assert inside.model_dump(exclude={"rejected"}) == pytest.approx(
        {
            "batches": 10,
            "batch_requests": 3.5,
            "batch_tokens": 400.0,
            "padding": 0.05,
            "queue_ms": 20.0,
            "inference_ms": 200.0,
            "utilization": 0.5,
        }
    )


def test_pairs_of_readings_are_taken_together() -> None:
    page, none = parse(PAGE, 1.0), MetricsReading(0.0, {"bentune_batch_tokens_count": 0.0})
    once, twice = between([(none, page)], 2), between([(none, page), (none, page)], 2)
    assert once is not None
    assert twice is not None
    assert twice == once.model_copy(update={"batches": 20, "rejected": {"overloaded": 10}})


def test_an_idle_server_has_no_means() -> None:
    page = parse(PAGE, 1.0)
    inside = between([(page, page)], slots=None)
    assert inside is not None
    assert inside.batches == 0
    assert inside.padding is None
    assert inside.utilization is None


def test_a_missing_reading_and_a_restart_give_none() -> None:
    page = parse(PAGE, 1.0)
    assert between([(page, None)], 1) is None
    assert between([(page, MetricsReading(2.0, {"bentune_batch_tokens_count": 3.0}))], 1) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"\xff\xfe\x00",
        b"bentune_x{",
        b"bentune_x NaN\n",
        b"bentune_x +Inf",
        b'bentune_x{a="\\',
        b"other 1\n",
    ],
)
def test_other_pages_have_no_metrics(content: bytes) -> None:
    assert parse(content, 0.0) is None


def test_signals_are_means_of_samples() -> None:
    busy, idle = parse(PAGE, 0.0), MetricsReading(1.0, {"bentune_slots_busy": 0.0})
    assert busy is not None
    signal = signal_of([busy, idle], slots=2)
    assert signal is not None
    assert (signal.slots_busy, signal.queue_tokens, signal.samples) == (0.25, 150.0, 2)
    assert signal_of([], 2) is None
    assert signal_of([busy], None) is None


def test_a_server_is_read() -> None:
    async def answer(request: web.Request) -> web.Response:
        info = {"digest": "0" * 64, "plan": {"slots": 2}}
        return web.Response(body=PAGE) if request.path == "/metrics" else web.json_response(info)

    with serving(answer) as url:
        assert slots_of(read_info(url)) == 2
        reading = read_metrics(url)
        assert reading is not None
        assert reading.rejected == {"overloaded": 5.0, "deadline": 0.0}
        assert len(asyncio.run(sample(url, 0.05, 0.22))) == pytest.approx(5, abs=1)


@pytest.mark.parametrize("info", [None, [], {"plan": []}, {"plan": {}}, {"plan": {"slots": "two"}, "digest": "d"}])
def test_another_products_info_gives_no_slots(info: object) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(info))

    with serving(answer) as url:
        assert slots_of(read_info(url)) is None


def test_an_endless_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)

    async def long(request: web.Request) -> web.Response:
        return web.Response(body=b"bentune_x 1\n" * 1000)

    with serving(long) as url:
        assert read_metrics(url) is None
    assert read_metrics(url) is None
    assert asyncio.run(sample(url, 0.05, 0.1)) == []
