"""The worker as the system sees it: its memory, its CPU time, and what settings it was started with."""

import os
import time

import pytest

from benchmarks.process import worker
from benchmarks.process.worker import MemoryWatch, Worker, serving_with
from bentune.bundle.errors import BentuneError


def test_reads_memory_and_cpu_time() -> None:
    this = Worker(os.getpid())
    before, loop_before = this.cpu_s, this.loop_cpu_s
    ends = time.process_time() + 0.2  # of CPU time: a busy machine gives less of it in a second
    while time.process_time() < ends:
        pass
    assert this.rss_mb > 10
    took, loop_took = this.cpu_s - before, this.loop_cpu_s - loop_before
    # Both are counted in ticks of the kernel, 10 ms, and read one after the other.
    assert took + 0.02 >= loop_took > 0.05


def test_the_peak_is_seen_though_it_was_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SAMPLE_EVERY_S", 0.01)
    this = Worker(os.getpid())
    with MemoryWatch(this) as watch:
        before = this.rss_mb
        block = b"x" * 200_000_000
        time.sleep(0.1)
        del block
    assert watch.peak_mb > before + 150


def test_settings_last_only_as_long_as_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTUNE_QUEUE_TOKENS", "1")
    with pytest.raises(BentuneError), serving_with("missing:1", 1000, {"BENTUNE_QUEUE_TOKENS": "2", "BENTUNE_NEW": ""}):
        pass
    assert os.environ["BENTUNE_QUEUE_TOKENS"] == "1"
    assert "BENTUNE_NEW" not in os.environ


def test_no_worker_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.psutil.Process, "children", lambda *_, **__: [])
    with pytest.raises(BentuneError, match="no server"):
        Worker.of_this_process()
