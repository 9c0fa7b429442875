"""A server that is started on cores of its own sees those, and leaves them to the next."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rollout.capacity.servers import pinned

SEES = "import os; print(sorted(os.sched_getaffinity(0)))"
CORES = sorted(os.sched_getaffinity(0))


@contextmanager
def launch() -> Iterator[str]:
    yield subprocess.run([sys.executable, "-c", SEES], capture_output=True, text=True, check=True).stdout.strip()


def test_each_has_its_own_cores_and_this_thread_keeps_its() -> None:
    start = pinned(launch, [{CORES[0]}, {CORES[-1]}])
    with start() as one, start() as two:
        assert (one, two) == (str([CORES[0]]), str([CORES[-1]]))
        assert sorted(os.sched_getaffinity(0)) == CORES
    with start() as again:
        assert again == str([CORES[-1]])


def test_without_free_cores_it_waits() -> None:
    start = pinned(launch, [{CORES[0]}])
    seen: list[str] = []

    def second() -> None:
        with start() as cores:
            seen.append(cores)

    waiting = threading.Thread(target=second)
    with start():
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert seen == [str([CORES[0]])]
