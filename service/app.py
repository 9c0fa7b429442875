"""What a pod does with a classifier: loads the bundle, proves it on its own CPU, answers through the scheduler."""

import asyncio
import gc
import math
import time
import traceback
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.responses import Response

from bentune.bundle.errors import (
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    NotReady,
    Overloaded,
    RequestError,
)
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Bundle, ImageLimits
from bentune.bundle.scores import NO_LABEL, Floats, Prediction, probabilities, ranked
from service.engine.engine import Proven, logger
from service.engine.memory import allowed_bytes, queue_limits
from service.http.requests import Incoming, PredictRequest, Row, field_of, rows_of
from service.monitoring.metrics import Metrics
from service.monitoring.prediction_log import Kept
from service.monitoring.record_answer import Outcomes
from service.scheduling.queue import QueueLimits
from service.scheduling.scheduler import Scheduler
from service.settings import Settings
from service.tasks.decoding import Decoder
from service.tasks.encoder import Encoded, encoder_of
from service.tasks.image import ImageEncoder

# Above this many characters, tokenizing would hold up the event loop for longer than another request should wait.
INLINE_CHARACTERS = 20_000
# Most texts have about five bytes a token: a body of so many bytes has hardly fewer tokens than this makes of it.
MOST_BYTES_PER_TOKEN = 8

Found = TypeVar("Found")


class TextClassifier:
    """One bundle being served by one process. `start` must be awaited on the event loop that serves."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle = bundle
        self.settings = settings
        self.metrics = Metrics()
        self.outcomes = Outcomes(bundle, settings, self.metrics)
        self.evidence = bundle.evidence()
        self.verdict = bundle.verdict()
        self.pairs = bundle.manifest.columns.text_pair is not None
        self.proven: Proven | None = None
        self.queue = QueueLimits(settings.queue_inputs, settings.queue_tokens)
        self.scheduler: Scheduler[Encoded, Floats] | None = None
        self.tokenizer = encoder_of(bundle)
        self.decoder = (
            Decoder(self.tokenizer, settings.queue_inputs) if isinstance(self.tokenizer, ImageEncoder) else None
        )

    def start(self) -> None:
        """Warm up, replay the golden rows, and take requests if they gave the expected scores.

        When they did not, the process stays alive and is never ready, so that a rollout stops by itself.
        """
        self.proven = proven = Proven(self.bundle, describe(), self.tokenizer, allowed_bytes(self.settings))
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
        # What was loaded lives as long as the process: a full collection would walk all of it while requests wait.
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
        """Finish what was accepted, within the drain timeout."""
        if self.scheduler is not None:
            await self.scheduler.drain(self.settings.drain_timeout_ms / 1000)
        if self.decoder is not None:
            self.decoder.close()
        await asyncio.to_thread(self.outcomes.close)

    @property
    def ready(self) -> bool:
        """Whether the golden rows gave the expected scores."""
        return self.scheduler is not None

    async def answer(self, incoming: Incoming) -> Response:
        """The HTTP answer to one request, an error answer included; never raises for what a client sent."""
        try:
            body = await self._answer(incoming)
        except RequestError as error:
            return _error(error)
        except Exception as error:
            # Where it was raised helps; its message may hold the user's text.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("a request raised %s\n%s", type(error).__name__, where)
            return _error(self._refused(InferenceFailed("an unexpected error, see the server's log")))
        return Response(to_json(body), media_type="application/json")

    def info(self) -> dict[str, Any]:
        """What `/info` shows: the model, its limits, its plan, and the headline of its evidence."""
        manifest, plan, evidence = self.bundle.manifest, self.bundle.plan, self.evidence
        tuned, base = evidence["evaluation"]["tuned"], evidence["evaluation"]["base"]
        proven = self.proven
        runtime = proven.runtime if proven else None
        replayed = proven.replayed if proven else None
        return {
            "name": manifest.name,
            "version": manifest.version,
            "digest": self.bundle.digest,
            "content": self.bundle.content,
            "parent": manifest.parent,
            "verdict": self.verdict,
            "task": manifest.task,
            "inputs": "image" if self.decoder else "pair" if self.pairs else "text",
            "labels": manifest.labels,
            "multi_label": manifest.multi_label,
            "created_at": manifest.created_at,
            "ready": self.ready,
            "limits": {
                "max_tokens": manifest.limits.max_tokens,
                **({"max_pixels": manifest.limits.max_pixels} if isinstance(manifest.limits, ImageLimits) else {}),
                "max_inputs": self.settings.max_inputs,
                "max_body_bytes": self.settings.max_body_bytes,
                "request_timeout_ms": self.settings.request_timeout_ms,
                "queue_inputs": self.queue.max_items,
                "queue_tokens": self.queue.max_tokens,
            },
            "plan": {
                "variant": runtime.variant if runtime else plan.variant,
                "provider": runtime.provider if runtime else plan.provider,
                "slots": runtime.slots if runtime else plan.slots,
                "threads": runtime.threads if runtime else plan.threads,
                "token_budget": runtime.token_budget if runtime else plan.token_budget,
                "padding_bound": plan.padding_bound,
                "measured_on": plan.cpu,
                "fallbacks": {one.reason: one.message for one in proven.fallbacks} if proven else {},
            },
            "evidence": {
                "accuracy": tuned["accuracy"],
                "accuracy_before_tuning": base["accuracy"],
                "rows": tuned["rows"],
                "parity": {
                    hop["hop"]: {"largest_difference": hop["largest_difference"], "label_flips": hop["label_flips"]}
                    for hop in evidence["parity"]["hops"]
                },
                "data_fingerprint": manifest.data_fingerprint,
                "recipe_digest": manifest.recipe_digest,
            },
            "golden": {
                "rows": replayed.rows if replayed else 0,
                "failed": len(replayed.failed) if replayed else 0,
                "largest_difference": replayed.largest_difference if replayed else None,
            },
            # The names of text-embeddings-inference, for its clients.
            "model_id": manifest.name,
            "model_sha": self.bundle.digest,
            "max_input_length": manifest.limits.max_tokens,
            "max_batch_tokens": runtime.token_budget if runtime else plan.token_budget,
            "max_client_batch_size": self.settings.max_inputs,
        }

    async def _answer(self, incoming: Incoming) -> list[Prediction] | list[list[Prediction]]:
        arrived = time.monotonic()
        request, rows, single, timeout_s = await self._admit(incoming, arrived)
        tokens = await self._tokenize(incoming, rows, request, single=single, deadline=arrived + timeout_s)
        kept = self.outcomes.keep(rows)
        # Only tokens are counted while they wait: megabytes of text may have become one row.
        rows.clear()
        request.inputs = ""
        if self.scheduler is None:
            raise self._refused(NotReady("the golden rows gave other scores; see the log"))
        work = self.scheduler.submit([(row, len(row)) for row in tokens], deadline=arrived + timeout_s)
        logits = await _unless_gone(work, incoming)
        answers = [self._prediction(*one, request) for one in zip(logits, tokens, kept, strict=True)]
        return answers[0] if single else answers

    async def _admit(self, incoming: Incoming, arrived: float) -> tuple[PredictRequest, list[Row], bool, float]:
        try:
            timeout_s = incoming.timeout_ms(self.settings.request_timeout_ms) / 1000
        except RequestError as error:
            raise self._refused(error) from None
        if self.scheduler is not None:
            # Before the body is parsed and tokenized. However long it is, it may be one text that will be cut.
            least = min(incoming.declared_bytes // MOST_BYTES_PER_TOKEN, self.bundle.manifest.limits.max_tokens)
            self.scheduler.require_room(least, arrived + timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                files = self.settings.max_inputs if self.decoder else 0
                request = await incoming.read(self.settings.max_body_bytes, files)
            rows, single = rows_of(request, pairs=self.pairs, max_inputs=self.settings.max_inputs)
        except TimeoutError:
            raise self._refused(DeadlineExceeded("the deadline passed before the body was here")) from None
        except RequestError as error:
            raise self._refused(error) from None
        return request, rows, single, timeout_s

    async def _tokenize(
        self, incoming: Incoming, rows: list[Row], request: PredictRequest, *, single: bool, deadline: float
    ) -> list[Encoded]:
        start = time.perf_counter()
        tokens: Sequence[Encoded]
        try:
            if self.decoder is not None:
                tokens = await _unless_gone(self.decoder.encode(rows, single=single, deadline=deadline), incoming)
            elif sum(len(text) + len(pair or "") for text, pair in rows) > INLINE_CHARACTERS:
                tokens = await asyncio.to_thread(self._encode, rows, truncate=request.truncate, single=single)
            else:
                tokens = self._encode(rows, truncate=request.truncate, single=single)
        except RequestError as error:
            raise self._refused(error) from None
        self.metrics.tokenize_seconds.observe(time.perf_counter() - start)
        if truncated := sum(row.truncated for row in tokens):
            self.metrics.truncated_total.inc(truncated)
        return [*tokens]

    def _encode(self, rows: list[Row], *, truncate: bool, single: bool) -> list[Encoded]:
        encoded = []
        for index, (text, pair) in enumerate(rows):
            field = field_of(index, single=single)
            tokens = self.tokenizer.encode(text, pair, truncate=truncate, field=field)
            if not len(tokens):  # blanks, for a tokenizer that adds no special tokens
                raise InvalidRequest(f"{field} has no tokens: it must hold more than blanks")
            encoded.append(tokens)
        return encoded

    def _prediction(
        self, logits: Floats, tokens: Encoded, kept: Kept | None, request: PredictRequest
    ) -> list[Prediction]:
        scores = probabilities(logits, multi_label=self.bundle.manifest.multi_label)
        self.outcomes.answered(tokens, scores, kept)
        shown = logits if request.raw_scores else scores
        return ranked(shown, self.bundle.manifest.labels, request.top_k, by=logits)

    def _refused(self, error: RequestError) -> RequestError:
        self.metrics.rejected(error.reason)
        return error

    def _prepare_metrics(self, proven: Proven) -> None:
        manifest, runtime = self.bundle.manifest, proven.runtime
        self.metrics.prepare([*manifest.labels, NO_LABEL] if manifest.multi_label else manifest.labels)
        self.metrics.model_info.labels(
            manifest.name, manifest.version, manifest.task, runtime.variant, runtime.provider, self.bundle.digest
        ).set(1)
        for fallback in proven.fallbacks:
            self.metrics.plan_fallback.labels(fallback.reason).set(1)


async def _unless_gone(work: Coroutine[Any, Any, Found], incoming: Incoming) -> Found:
    """Await the answer, but drop the work when the client closes its connection. Raises ClientGone."""
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
