"""Engine of a bundle once its golden rows were replayed: as planned, or in fp32 where that is what holds."""

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

# Below "bentoml", whose handlers alone print what is no warning.
logger = logging.getLogger("bentoml.bentune")


class Proven:
    """The engine that a bundle runs on `cpu`, `engine`, or None when not even fp32 gave the golden rows' scores.

    None too when what it would fall back to takes more than `memory_limit` bytes, which was logged. `fallbacks` says
    why `runtime` is not what the plan says; each was logged once.
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
            engine = None  # its weights go before the next ones come
            # The runtime that was chosen first was checked before this process was started.
            if runtime != self.runtime and (why := shortage(bundle, runtime, memory_limit)):
                logger.error("%s does not fall back to %s: %s", bundle.tag, runtime.variant, why)
                return
            self.runtime = runtime
            certain = (runtime.variant, runtime.provider) == (last.variant, last.provider)
            try:
                engine = Engine(bundle.root / model_file(runtime.variant), runtime, task)
                self.replayed = engine.replay(bundle.golden, scores_key(runtime.variant, runtime.provider))
            except Exception as error:  # it may load and yet not run; what ONNX Runtime raises has no common base
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
