"""Metrics of a server from outside: /info once, and /metrics before, during and after a load.

A server without them, such as another product, is measured too, with None for missing values. Only a bounded part of
an answer is read, and only numbers are taken from it.
"""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict

MAX_ANSWER_BYTES = 4_000_000
TIMEOUT_S = 10.0
SAMPLE_EVERY_S = 0.25
PLAIN = {"accept-encoding": "identity"}  # a compressed answer has no bound
PREFIX = "bentune_"
BATCHES = f"{PREFIX}batch_tokens_count"


class ServerSide(BaseModel):
    """Metrics of a load inside the server, the warm-up included.

    Values are means over batches, `queue_ms` one over inputs. `padding` is the share of padding among a batch's tokens.
    `utilization` is the share of the slots' time spent computing. It is a lower bound: a batch that used all cores
    counts as one slot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batches: int
    batch_requests: float | None
    batch_tokens: float | None
    padding: float | None
    queue_ms: float | None
    inference_ms: float | None
    rejected: dict[str, int]
    utilization: float | None


class Signal(BaseModel):
    """Means of an autoscaler's metrics during a load: the share of busy slots, and waiting tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots_busy: float
    queue_tokens: float
    samples: int


@dataclass(frozen=True)
class MetricsReading:
    """Metrics of a server at one moment: `values` summed over labels, `rejected` by reason."""

    at_s: float
    values: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, float] = field(default_factory=dict)


def read_info(url: str) -> dict[str, Any] | None:
    """Read the /info of a Bentune server; None for any other."""
    content = _get(f"{url}/info")
    if content is None:
        return None
    with suppress(ValueError, RecursionError):
        info = httpx.Response(200, content=content).json()
        if isinstance(info, dict) and isinstance(info.get("plan"), dict) and isinstance(info.get("digest"), str):
            return info
    return None


def slots_of(info: dict[str, Any] | None) -> int | None:
    """Return the number of batches that the server computes at once, from its /info."""
    slots = info["plan"].get("slots") if info else None
    return slots if isinstance(slots, int) and slots > 0 else None


def read_metrics(url: str) -> MetricsReading | None:
    """Read the metrics of a Bentune server; None for any other."""
    content = _get(f"{url}/metrics")
    return None if content is None else parse(content, time.monotonic())


def parse(content: bytes, at_s: float) -> MetricsReading | None:
    """Parse Bentune's metrics in an answer; None when there are none."""
    values: dict[str, float] = {}
    rejected: dict[str, float] = {}
    ours = "\n".join(line for line in content.decode("utf-8", "replace").splitlines() if line.startswith(PREFIX))
    # Any exception: the text comes from an unknown server.
    with suppress(Exception):
        for family in text_string_to_metric_families(ours + "\n"):
            for sample in family.samples:
                if not math.isfinite(sample.value):
                    continue
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
                if sample.name == f"{PREFIX}rejected_total":
                    reason = sample.labels.get("reason", "")[:40]
                    rejected[reason] = rejected.get(reason, 0.0) + sample.value
    return MetricsReading(at_s, values, rejected) if values else None


def between(
    readings: Sequence[tuple[MetricsReading | None, MetricsReading | None]], slots: int | None
) -> ServerSide | None:
    """Compute the metrics between pairs of readings, taken together.

    Returns None when a reading is missing, or when the server restarted within a pair.
    """
    grown: defaultdict[str, float] = defaultdict(float)
    rejected: Counter[str] = Counter()
    elapsed = 0.0
    for before, after in readings:
        if before is None or after is None:
            return None
        if after.values.get(BATCHES, 0.0) < before.values.get(BATCHES, 0.0):
            return None
        for name, value in after.values.items():
            grown[name] += value - before.values.get(name, 0.0)
        for reason, value in after.rejected.items():
            rejected[reason] += int(value - before.rejected.get(reason, 0.0))
        elapsed += after.at_s - before.at_s

    def mean(name: str, scale: float = 1.0) -> float | None:
        count = grown[f"{PREFIX}{name}_count"]
        return grown[f"{PREFIX}{name}_sum"] / count * scale if count > 0 else None

    return ServerSide(
        batches=int(grown[BATCHES]),
        batch_requests=mean("batch_requests"),
        batch_tokens=mean("batch_tokens"),
        padding=mean("batch_padding_ratio"),
        queue_ms=mean("request_queue_seconds", 1000),
        inference_ms=mean("inference_seconds", 1000),
        rejected={reason: count for reason, count in sorted(rejected.items()) if count > 0},
        utilization=grown[f"{PREFIX}inference_seconds_sum"] / (slots * elapsed) if slots and elapsed > 0 else None,
    )


async def sample(url: str, every_s: float, seconds: float) -> list[MetricsReading]:
    """Read /metrics every `every_s` for `seconds`, like Prometheus, only more often."""
    pages: list[tuple[float, bytes]] = []
    ends = time.monotonic() + seconds
    # Not httpx: it would load all certificates here, and delay the requests that are measured.
    bound = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=bound, headers=PLAIN, auto_decompress=False) as session:
        while (now := time.monotonic()) < ends:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{url}/metrics", allow_redirects=False) as answer:
                    content = bytearray()
                    async for piece in answer.content.iter_any():
                        content += piece
                        if len(content) > MAX_ANSWER_BYTES:
                            break
                    pages.append((now, bytes(content)))
            await asyncio.sleep(max(0.0, now + every_s - time.monotonic()))
    # Parsed at the end, for the same reason.
    return [reading for at_s, page in pages if (reading := parse(page, at_s)) is not None]


def signal_of(readings: Sequence[MetricsReading], slots: int | None) -> Signal | None:
    """Average the readings; None without any, or if the slots are unknown."""
    if not readings or not slots:
        return None
    busy = [reading.values.get(f"{PREFIX}slots_busy", 0.0) / slots for reading in readings]
    tokens = [reading.values.get(f"{PREFIX}queue_tokens", 0.0) for reading in readings]
    return Signal(slots_busy=sum(busy) / len(busy), queue_tokens=sum(tokens) / len(tokens), samples=len(readings))


def _get(url: str) -> bytes | None:
    """Return the body of an answer 200 that is neither too long nor too slow."""
    ends = time.monotonic() + TIMEOUT_S
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT_S, headers=PLAIN) as answer:
            if answer.status_code != httpx.codes.OK:
                return None
            content = bytearray()
            for piece in answer.iter_raw():
                content += piece
                if len(content) > MAX_ANSWER_BYTES or time.monotonic() > ends:
                    return None
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return bytes(content)
