"""Variant of the plan without HTTP: the upper bound of a server, and the gain of a second slot."""

import itertools
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bentune.bundle.manifest import Bundle
from bentune.bundle.plan import model_file
from service.engine.engine import Engine
from service.engine.predictor import Predictor
from service.engine.runtime import Runtime
from service.scheduling.priority import SWITCH_INTERVAL_S
from service.tasks.registry import task_of

TEXTS = 32
"""Texts per call, equal to the number of clients of the served case."""


class InProcess:
    """Sessions of the bundle's plan in this process, with a given number of slots."""

    def __init__(self, bundle: Bundle, slots: int) -> None:
        best = bundle.plan.measured[0]
        task = task_of(bundle)
        runtime = Runtime(best.variant, best.provider, slots, best.threads, best.token_budget)
        engine = Engine(bundle.root / model_file(best.variant), runtime, task)
        self._slots = [Predictor(task, slot.session, best.token_budget) for slot in engine.slots]

    def texts_per_second(self, texts: Sequence[str], seconds: float) -> float:
        """Return texts per second, from text to ranked labels, with every slot busy."""
        calls = itertools.cycle([texts[start : start + TEXTS] for start in range(0, len(texts), TEXTS)])
        lock = threading.Lock()
        sys.setswitchinterval(SWITCH_INTERVAL_S)  # as in the service

        def slot(predictor: Predictor) -> float:
            start, done = time.perf_counter(), 0
            while time.perf_counter() < start + seconds:
                with lock:
                    call = next(calls)
                predictor.score([(text, None) for text in call])
                done += len(call)
            return done / (time.perf_counter() - start)

        with ThreadPoolExecutor(len(self._slots)) as threads:
            return sum(threads.map(slot, self._slots))
