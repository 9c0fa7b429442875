"""What computes in a pod: sessions for the slots and for a lone request, chosen by the plan, proven on golden rows."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import Bundle, GoldenRow
from bentune.bundle.plan import model_file, scores_key
from bentune.bundle.scores import Floats
from service.engine.golden import Replay, replay
from service.engine.memory import shortage
from service.engine.predictor import Predictor, Session
from service.engine.providers import available
from service.engine.runtime import Fallback, Runtime, choose, in_fp32
from service.scheduling.queue import BatchShape, QueueLimits
from service.scheduling.scheduler import Observer, Runner, Scheduler
from service.tasks.encoder import Encoded, Encoder

# Below "bentoml", whose handlers alone print what is no warning.
logger = logging.getLogger("bentoml.bentune")

MAX_BATCH_ITEMS = 128


class Engine:
    """The sessions of one runtime. A slot has its own cores; `wide` has all of them, for what arrives alone."""

    def __init__(
        self,
        model: Path,
        runtime: Runtime,
        tokenizer: Encoder,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
    ) -> None:
        """Load the graph `model`. Raises BundleError when it cannot be loaded."""
        cores = runtime.slots * runtime.threads
        sessions = (
            [Session(model, runtime.provider, runtime.threads) for _ in range(runtime.slots)]
            if runtime.apart
            else [Session(model, runtime.provider, runtime.threads, runtime.slots)] * runtime.slots
        )
        wide = Session(model, runtime.provider, cores) if runtime.slots > 1 else None
        self.slots = [Predictor(tokenizer, session, labels, multi_label=multi_label) for session in sessions]
        self.wide = Predictor(tokenizer, wide, labels, multi_label=multi_label) if wide else None

    def scheduler(
        self, token_budget: int, padding_bound: float, limits: QueueLimits, observer: Observer
    ) -> Scheduler[Encoded, Floats]:
        """What shares these sessions among requests: logits of each, float32 [labels]."""
        return Scheduler(
            [runner(predictor) for predictor in self.slots],
            wide=runner(self.wide) if self.wide else None,
            limits=limits,
            shape=BatchShape(token_budget, padding_bound, MAX_BATCH_ITEMS),
            observer=observer,
        )

    def replay(self, golden: list[GoldenRow], key: str) -> Replay:
        """Replay the golden rows on every session; the worst outcome counts."""
        distinct = {id(predictor.session): predictor for predictor in [*self.slots, self.wide] if predictor}
        return max(
            (replay(predictor, golden, key) for predictor in distinct.values()),
            key=lambda one: (len(one.failed), one.largest_difference),
        )


class Proven:
    """The engine that a bundle runs on `cpu`, `engine`, or None when not even fp32 gave the golden rows' scores.

    None too when what it would fall back to takes more than `memory_limit` bytes, which was logged. `fallbacks` says
    why `runtime` is not what the plan says; each was logged once.
    """

    def __init__(self, bundle: Bundle, cpu: Cpu, tokenizer: Encoder, memory_limit: int | None = None) -> None:
        """Load and replay. Raises BundleError when not even fp32 can be loaded."""
        self.runtime, self.fallbacks = choose(bundle.plan, cpu, available())
        for fallback in self.fallbacks:
            _warn(bundle, fallback)
        last = in_fp32(bundle.plan, cpu)
        self.engine: Engine | None = None
        self.replayed = Replay(0, float("inf"), [])
        for runtime in dict.fromkeys([self.runtime, last]):
            engine = None  # its weights go before the next ones come
            # What was chosen first was checked before this process was started.
            if runtime != self.runtime and (why := shortage(bundle, runtime, memory_limit)):
                logger.error("%s does not fall back to %s: %s", bundle.tag, runtime.variant, why)
                return
            self.runtime = runtime
            certain = (runtime.variant, runtime.provider) == (last.variant, last.provider)
            try:
                graph, manifest = bundle.root / model_file(runtime.variant), bundle.manifest
                engine = Engine(graph, runtime, tokenizer, manifest.labels, multi_label=manifest.multi_label)
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


def runner(predictor: Predictor) -> Runner[Encoded, Floats]:
    """What the scheduler calls: logits of a batch, float32 [labels] each. It raises FloatingPointError for a NaN."""

    def run(batch: Sequence[Encoded]) -> list[Floats]:
        logits = predictor.logits(batch)
        if not np.isfinite(logits).all():
            raise FloatingPointError("logits are not finite")
        return list(logits)

    return run
