"""Sessions of one runtime: one or more for the slots, and one with all cores for a lone request."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bentune.bundle.arrays import Float32s
from bentune.bundle.manifest import GoldenRow
from service.engine.golden import Replay, replay
from service.engine.predictor import Predictor, Session
from service.engine.runtime import Runtime
from service.scheduling.batch import BatchShape
from service.scheduling.queue import QueueLimits
from service.scheduling.scheduler import Observer, Runner, Scheduler
from service.tasks.task import Encoded, Task

MAX_BATCH_ITEMS = 128


class Engine:
    """Sessions of one runtime. A slot has its own cores; `wide` has all of them, for a lone request."""

    def __init__(self, model: Path, runtime: Runtime, task: Task) -> None:
        """Load the graph `model`. Raises BundleError when it cannot be loaded."""
        cores = runtime.slots * runtime.threads
        sessions = (
            [Session(model, runtime.provider, runtime.threads) for _ in range(runtime.slots)]
            if runtime.apart
            else [Session(model, runtime.provider, runtime.threads, runtime.slots)] * runtime.slots
        )
        wide = Session(model, runtime.provider, cores) if runtime.slots > 1 else None
        self.slots = [Predictor(task, session) for session in sessions]
        self.wide = Predictor(task, wide) if wide else None

    def scheduler(
        self, token_budget: int, padding_bound: float, limits: QueueLimits, observer: Observer
    ) -> Scheduler[Encoded, Float32s]:
        """Return the scheduler that shares these sessions among requests.

        The result of each item is its outputs, float32 [labels].
        """
        return Scheduler(
            [runner(predictor) for predictor in self.slots],
            wide=runner(self.wide) if self.wide else None,
            limits=limits,
            shape=BatchShape(token_budget, padding_bound, MAX_BATCH_ITEMS),
            observer=observer,
        )

    def replay(self, golden: list[GoldenRow], key: str) -> Replay:
        """Replay the golden rows on every session, and return the worst result."""
        distinct = {id(predictor.session): predictor for predictor in [*self.slots, self.wide] if predictor}
        return max(
            (replay(predictor, golden, key) for predictor in distinct.values()),
            key=lambda one: (len(one.failed), one.largest_difference),
        )


def runner(predictor: Predictor) -> Runner[Encoded, Float32s]:
    """Return the function with which the scheduler computes a batch.

    It returns the outputs of the batch, float32 [labels] each. It raises FloatingPointError for a NaN or an infinity.
    """

    def run(batch: Sequence[Encoded]) -> list[Float32s]:
        logits = predictor.logits(batch)
        if not np.isfinite(logits).all():
            raise FloatingPointError("logits are not finite")
        return list(logits)

    return run
