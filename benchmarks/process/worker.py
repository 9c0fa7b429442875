"""Measurements of a serving process: memory, CPU time, and CPU time of its event loop."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from bentune.bundle.errors import BentuneError
from rollout.server.target import Served, serving

SAMPLE_EVERY_S = 0.2


class Worker:
    """One serving process."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    @classmethod
    def of_this_process(cls) -> "Worker":
        """Find the worker of the one server that this process started.

        Raises BentuneError when there is none.
        """
        family = psutil.Process().children(recursive=True)
        if not family:
            raise BentuneError("this process has started no server")
        # Supervisors hold no model.
        return cls(max(family, key=lambda process: process.memory_info().rss).pid)

    @property
    def rss_mb(self) -> float:
        """Resident memory, in MB of 1,000,000 bytes."""
        rss: int = self._process.memory_info().rss
        return rss / 1e6

    @property
    def cpu_s(self) -> float:
        """CPU time in seconds of all threads so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def loop_cpu_s(self) -> float:
        """CPU time in seconds of the first thread so far.

        BentoML and uvicorn run the event loop on it.
        """
        first = next(thread for thread in self._process.threads() if thread.id == self._process.pid)
        return float(first.user_time + first.system_time)


def machine_cpu_s() -> float:
    """Return the busy seconds of all cores so far, the hypervisor's share included."""
    times = psutil.cpu_times()
    # "guest" is left out, because Linux counts it in "user" too.
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))


class MemoryWatch:
    """Sampler of a worker's memory in a thread while its block runs; `peak_mb` is the largest sample."""

    def __init__(self, worker: Worker) -> None:
        self.peak_mb = worker.rss_mb
        self._worker = worker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.peak_mb = max(self.peak_mb, self._worker.rss_mb)


@contextmanager
def serving_with(tag: str, timeout_ms: int, settings: Mapping[str, str]) -> Iterator[tuple[Served, Worker]]:
    """Serve the Bento `tag` with `settings` in its environment.

    See `rollout.server.target.serving`.
    """
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        with serving(tag, timeout_ms) as served:
            yield served, Worker.of_this_process()
    finally:
        os.environ.clear()
        os.environ.update(before)


def sleep_until(moment: float) -> None:
    """Sleep until `moment` on time.monotonic's clock."""
    time.sleep(max(0.0, moment - time.monotonic()))
