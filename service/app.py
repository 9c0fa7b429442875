"""Application of one pod: opens the bundle, replays its golden rows, answers requests through the scheduler."""

import asyncio
import gc
import math
import time
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.responses import Response

from bentune.bundle.arrays import Float32s
from bentune.bundle.errors import (
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    RequestError,
)
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Bundle
from bentune.bundle.targets.target import Prediction
from service.engine.memory import allowed_bytes, queue_limits
from service.engine.proven import Proven, logger
from service.http.requests import Incoming, InputRow, PredictRequest
from service.info import info
from service.monitoring.metrics import Metrics
from service.monitoring.prediction_log import SampledInput
from service.monitoring.record_answer import Recorder
from service.scheduling.queue import QueueLimits
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.tasks.registry import task_of
from service.tasks.task import Encoded

# Texts have about five bytes per token, so a body's bytes divided by this rarely overestimate its tokens.
MOST_BYTES_PER_TOKEN = 8

_Found = TypeVar("_Found")


class Application:
    """One bundle being served by one process. `start` must be awaited on the event loop that serves."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle = bundle
        self.settings = settings
        self.metrics = Metrics()
        self.evidence = bundle.evidence()
        self.verdict = bundle.verdict()
        self.task = task_of(bundle)
        self.intake = self.task.intake(settings.queue_inputs)
        self.recorder = Recorder(bundle, self.task, settings, self.metrics)
        self.proven: Proven | None = None
        self.queue = QueueLimits(settings.queue_inputs, settings.queue_tokens)
        self.scheduler: Scheduler[Encoded, Float32s] | None = None

    def start(self) -> None:
        """Load the model, replay the golden rows, and accept requests if all match.

        Otherwise the process stays alive but never becomes ready, so that a rollout stops by itself.
        """
        self.proven = proven = Proven(self.bundle, describe(), self.task, allowed_bytes(self.settings))
        self._prepare_metrics(proven)
        runtime, replayed = proven.runtime, proven.replayed
        if proven.engine is None:
            logger.error(
                "%s is not ready: %d of %d golden rows (numbers %s) differ from the bundle's scores, by up to %.3g",
                self.bundle.tag,
                len(replayed.failed),
                replayed.rows,
                replayed.failed[:10],
                replayed.largest_difference,
            )
            return
        self.queue = queue_limits(self.bundle, runtime, self.settings)
        self.scheduler = proven.engine.scheduler(
            runtime.token_budget, self.bundle.plan.padding_bound, self.queue, self.metrics
        )
        # The loaded objects live as long as the process: a full collection would walk all of them while requests wait.
        gc.collect()
        gc.freeze()
        logger.info(
            "%s is ready: %s on %s, %d slots of %d threads, %d golden rows within %.2g",
            self.bundle.tag,
            runtime.variant,
            runtime.provider,
            runtime.slots,
            runtime.threads,
            replayed.rows,
            replayed.largest_difference,
        )

    async def stop(self) -> None:
        """Finish the accepted requests within the drain timeout."""
        if self.scheduler is not None:
            await self.scheduler.drain(self.settings.drain_timeout_ms / 1000)
        self.intake.close()
        await asyncio.to_thread(self.recorder.close)

    @property
    def ready(self) -> bool:
        """True once the golden rows gave the expected scores."""
        return self.scheduler is not None

    async def answer(self, incoming: Incoming) -> Response:
        """Return the HTTP response to one request, also when it is an error.

        Nothing that a client sends makes it raise.
        """
        try:
            body = await self._answer(incoming)
        except RequestError as error:
            return _error(error)
        except Exception as error:
            # Only the places are logged: the error's message may hold the user's text.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("a request raised %s\n%s", type(error).__name__, where)
            return _error(self._refused(InferenceFailed("an unexpected error, see the server's log")))
        return Response(to_json(body), media_type="application/json")

    def info(self) -> dict[str, Any]:
        """Return the content of `/info`."""
        return info(self.bundle, self.task, self.settings, self.queue, self.proven, self.evidence, self.verdict)

    async def _answer(self, incoming: Incoming) -> list[Prediction] | list[list[Prediction]]:
        arrived = time.monotonic()
        request, rows, single, timeout_s = await self._admit(incoming, arrived)
        encoded = await self._encode(incoming, rows, request, single=single, deadline=arrived + timeout_s)
        kept = self.recorder.keep(rows)
        # The queue's bounds count tokens only, and one row may have come from megabytes of text.
        rows.clear()
        request.inputs = ""
        if self.scheduler is None:
            raise self._refused(NotReady("the golden rows gave other scores; see the log"))
        work = self.scheduler.submit([(row, len(row)) for row in encoded], deadline=arrived + timeout_s)
        outputs = await _unless_gone(work, incoming)
        answers = [self._prediction(*one, request) for one in zip(outputs, encoded, kept, strict=True)]
        return answers[0] if single else answers

    async def _admit(self, incoming: Incoming, arrived: float) -> tuple[PredictRequest, list[InputRow], bool, float]:
        try:
            timeout_s = incoming.timeout_ms(self.settings.request_timeout_ms) / 1000
        except RequestError as error:
            raise self._refused(error) from None
        if self.scheduler is not None:
            # Checked before the body is parsed and tokenized. A body of any length may be one text that will be
            # truncated.
            least = min(incoming.declared_bytes // MOST_BYTES_PER_TOKEN, self.bundle.manifest.limits.max_tokens)
            self.scheduler.require_room(least, arrived + timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                files = self.settings.max_inputs if self.task.body else 0
                request = await incoming.read(self.settings.max_body_bytes, files)
            rows, single = self.task.read(request, self.settings.max_inputs)
        except TimeoutError:
            raise self._refused(DeadlineExceeded("the deadline passed before the body arrived")) from None
        except RequestError as error:
            raise self._refused(error) from None
        return request, rows, single, timeout_s

    async def _encode(
        self, incoming: Incoming, rows: list[InputRow], request: PredictRequest, *, single: bool, deadline: float
    ) -> Sequence[Encoded]:
        start = time.perf_counter()
        try:
            work = self.intake.encode(rows, truncate=request.truncate, single=single, deadline=deadline)
            encoded = await (_unless_gone(work, incoming) if self.intake.watched else work)
        except RequestError as error:
            raise self._refused(error) from None
        self.metrics.encode_seconds.observe(time.perf_counter() - start)
        if truncated := sum(row.truncated for row in encoded):
            self.metrics.truncated_total.inc(truncated)
        return encoded

    def _prediction(
        self, output: Float32s, encoded: Encoded, kept: SampledInput | None, request: PredictRequest
    ) -> list[Prediction]:
        scores = self.task.target.scores(output)
        self.recorder.answered(encoded, scores, kept)
        return self.task.answer(output, scores, request)

    def _refused(self, error: RequestError) -> RequestError:
        self.metrics.rejected(error.reason)
        return error

    def _prepare_metrics(self, proven: Proven) -> None:
        manifest, runtime = self.bundle.manifest, proven.runtime
        self.metrics.prepare(manifest.target.counted)
        self.metrics.model_info.labels(
            manifest.name, manifest.version, manifest.task, runtime.variant, runtime.provider, self.bundle.digest
        ).set(1)
        for fallback in proven.fallbacks:
            self.metrics.plan_fallback.labels(fallback.reason).set(1)


async def _unless_gone(work: Coroutine[Any, Any, _Found], incoming: Incoming) -> _Found:
    """Await `work`, and cancel it when the client closes its connection.

    Raises ClientGone in that case.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("requests are answered in a task")
    waiting = True

    def cancel(watch: asyncio.Future[None]) -> None:
        if waiting and not watch.cancelled():
            task.cancel()

    gone = asyncio.ensure_future(incoming.gone())
    gone.add_done_callback(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and task.uncancel() == 0:
            raise ClientGone("the client closed its connection") from None
        raise
    finally:
        waiting = False
        gone.cancel()


def _error(error: RequestError) -> Response:
    headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if isinstance(error, Overloaded) else None
    if isinstance(error, InferenceFailed):
        logger.error("inference failed: %s", error)
    body = {"error": str(error), "error_type": error.error_type}
    return Response(to_json(body), status_code=error.status, headers=headers, media_type="application/json")
