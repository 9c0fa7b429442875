"""Engine of a bundle after the golden replay: as planned, or in fp32 as the fallback."""

import logging

from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import Bundle
from bentune.bundle.plan import model_file, scores_key
from service.engine.engine import Engine
from service.engine.golden import Replay
from service.engine.memory import shortage
from service.engine.providers import available
from service.engine.runtime import Fallback, choose, in_fp32
from service.tasks.task import Task

# Below "bentoml": only its handlers print records below a warning.
logger = logging.getLogger("bentoml.bentune")


class Proven:
    """Engine of a bundle on `cpu`, after the golden replay.

    `engine` is None when fp32 fails the golden replay too, or when the fallback needs more than `memory_limit` bytes,
    which is logged. `fallbacks` explains why `runtime` differs from the plan; each is logged once.
    """

    def __init__(self, bundle: Bundle, cpu: Cpu, task: Task, memory_limit: int | None = None) -> None:
        """Load and replay. Raises BundleError when not even fp32 can be loaded."""
        self.runtime, self.fallbacks = choose(bundle.plan, cpu, available())
        for fallback in self.fallbacks:
            _warn(bundle, fallback)
        last = in_fp32(bundle.plan, cpu)
        self.engine: Engine | None = None
        self.replayed = Replay(0, float("inf"), [])
        for runtime in dict.fromkeys([self.runtime, last]):
            engine = None  # frees its weights before the next ones are loaded
            # The runtime that was chosen first was checked before this process was started.
            if runtime != self.runtime and (why := shortage(bundle, runtime, memory_limit)):
                logger.error("%s does not fall back to %s: %s", bundle.tag, runtime.variant, why)
                return
            self.runtime = runtime
            certain = (runtime.variant, runtime.provider) == (last.variant, last.provider)
            try:
                engine = Engine(bundle.root / model_file(runtime.variant), runtime, task)
                self.replayed = engine.replay(bundle.golden, scores_key(runtime.variant, runtime.provider))
            except Exception as error:  # a graph may load and yet not run; ONNX Runtime's errors have no common base
                if certain:
                    raise
                self._fall_back(bundle, Fallback("provider", str(error)))
                continue
            if self.replayed.passed:
                self.engine = engine
                return
            if certain:
                return
            failed, rows = len(self.replayed.failed), self.replayed.rows
            message = f"{runtime.variant} on {runtime.provider}: {failed} of {rows} golden rows got other scores"
            self._fall_back(bundle, Fallback("golden", f"{message}, by up to {self.replayed.largest_difference:.3g}"))

    def _fall_back(self, bundle: Bundle, fallback: Fallback) -> None:
        self.fallbacks.append(fallback)
        _warn(bundle, fallback)


def _warn(bundle: Bundle, fallback: Fallback) -> None:
    logger.warning("%s does not run as planned (%s): %s", bundle.tag, fallback.reason, fallback.message)
