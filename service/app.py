"""What a pod does with a text classifier: loads the bundle, proves it on its own CPU, answers through the scheduler."""

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from pydantic_core import to_json
from starlette.responses import Response

from service.batching import Scheduler
from service.contract import Bundle
from service.errors import (
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    NotReady,
    Overloaded,
    RequestError,
)
from service.golden import Replay, replay
from service.hardware import visible_cores
from service.metrics import Metrics
from service.predictor import Predictor, Session
from service.requests import Incoming, PredictRequest, Row, field_of, rows_of
from service.scores import Floats, Prediction, probabilities, ranked
from service.settings import Settings
from service.tokens import TextTokenizer, Tokens
from service.waiting import BatchShape, QueueLimits

# Below "bentoml", whose handlers alone print what is no warning.
logger = logging.getLogger("bentoml.bentune")

MAX_BATCH_ITEMS = 128
# Above this many characters, tokenizing would hold up the event loop for longer than another request should wait.
INLINE_CHARACTERS = 20_000


class TextClassifier:
    """One bundle being served by one process. `start` must be awaited on the event loop that serves."""

    def __init__(self, bundle: Bundle, settings: Settings) -> None:
        self.bundle = bundle
        self.settings = settings
        self.metrics = Metrics()
        self.evidence = bundle.evidence()
        self.pairs = bundle.manifest.columns.text_pair is not None
        self.replayed: Replay | None = None
        self.scheduler: Scheduler[Tokens, Floats] | None = None
        cores = visible_cores()
        self.slots = bundle.plan.slots or cores
        self.threads = bundle.plan.threads or max(1, cores // self.slots)
        self.tokenizer = TextTokenizer(
            bundle.root / "processor/tokenizer.json", bundle.processor, bundle.manifest.limits.max_tokens
        )
        self._predictors = [self._predictor(self.threads) for _ in range(self.slots)]
        # Alone, a request would leave all slots but its own idle; this one has every core.
        self._wide = self._predictor(cores) if self.slots > 1 and cores > self.threads else None

    def start(self) -> None:
        """Warm up, replay the golden rows, and take requests if they gave the expected scores.

        When they did not, the process stays alive and is never ready, so that a rollout stops by itself.
        """
        self._prepare_metrics()
        everyone = [*self._predictors, *([self._wide] if self._wide else [])]
        replays = [replay(predictor, self.bundle.golden) for predictor in everyone]
        self.replayed = max(replays, key=lambda one: (len(one.failed), one.largest_difference))
        if not self.replayed.passed:
            logger.error(
                "%s is not ready: %d of %d golden rows (numbers %s) differ from the bundle's scores, by up to %.3g",
                self.bundle.tag,
                len(self.replayed.failed),
                self.replayed.rows,
                self.replayed.failed[:10],
                self.replayed.largest_difference,
            )
            return
        plan = self.bundle.plan
        self.scheduler = Scheduler(
            [_runner(predictor) for predictor in self._predictors],
            wide=_runner(self._wide) if self._wide else None,
            limits=QueueLimits(self.settings.queue_inputs, self.settings.queue_tokens),
            shape=BatchShape(plan.token_budget, plan.padding_bound, MAX_BATCH_ITEMS),
            observer=self.metrics,
        )
        logger.info(
            "%s is ready: %d slots of %d threads, %d golden rows within %.2g",
            self.bundle.tag,
            self.slots,
            self.threads,
            self.replayed.rows,
            self.replayed.largest_difference,
        )

    async def stop(self) -> None:
        """Finish what was accepted, within the drain timeout."""
        if self.scheduler is not None:
            await self.scheduler.drain(self.settings.drain_timeout_ms / 1000)

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
        replayed = self.replayed
        return {
            "name": manifest.name,
            "version": manifest.version,
            "digest": self.bundle.digest,
            "task": manifest.task,
            "inputs": "pair" if self.pairs else "text",
            "labels": manifest.labels,
            "created_at": manifest.created_at,
            "ready": self.ready,
            "limits": {
                "max_tokens": manifest.limits.max_tokens,
                "max_inputs": self.settings.max_inputs,
                "max_body_bytes": self.settings.max_body_bytes,
                "request_timeout_ms": self.settings.request_timeout_ms,
            },
            "plan": {
                "variant": plan.variant,
                "provider": plan.provider,
                "slots": self.slots,
                "threads": self.threads,
                "token_budget": plan.token_budget,
                "padding_bound": plan.padding_bound,
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
            "max_batch_tokens": plan.token_budget,
            "max_client_batch_size": self.settings.max_inputs,
        }

    async def _answer(self, incoming: Incoming) -> list[Prediction] | list[list[Prediction]]:
        arrived = time.monotonic()
        request, rows, single, timeout_s = await self._admit(incoming)
        tokens = await self._tokenize(rows, truncate=request.truncate, single=single)
        if self.scheduler is None:
            raise self._refused(NotReady("the golden rows gave other scores; see the log"))
        work = self.scheduler.submit([(row, len(row)) for row in tokens], deadline=arrived + timeout_s)
        logits = await _unless_gone(work, incoming)
        answers = [self._prediction(row, request) for row in logits]
        return answers[0] if single else answers

    async def _admit(self, incoming: Incoming) -> tuple[PredictRequest, list[Row], bool, float]:
        try:
            timeout_s = incoming.timeout_ms(self.settings.request_timeout_ms) / 1000
            async with asyncio.timeout(timeout_s):
                request = await incoming.read(self.settings.max_body_bytes)
            rows, single = rows_of(request, pairs=self.pairs, max_inputs=self.settings.max_inputs)
        except TimeoutError:
            raise self._refused(DeadlineExceeded("the deadline passed before the body was here")) from None
        except RequestError as error:
            raise self._refused(error) from None
        return request, rows, single, timeout_s

    async def _tokenize(self, rows: list[Row], *, truncate: bool, single: bool) -> list[Tokens]:
        start = time.perf_counter()
        try:
            if sum(len(text) + len(pair or "") for text, pair in rows) > INLINE_CHARACTERS:
                tokens = await asyncio.to_thread(self._encode, rows, truncate=truncate, single=single)
            else:
                tokens = self._encode(rows, truncate=truncate, single=single)
        except RequestError as error:
            raise self._refused(error) from None
        self.metrics.tokenize_seconds.observe(time.perf_counter() - start)
        self.metrics.truncated_total.inc(sum(row.truncated for row in tokens))
        return tokens

    def _encode(self, rows: list[Row], *, truncate: bool, single: bool) -> list[Tokens]:
        encoded = []
        for index, (text, pair) in enumerate(rows):
            field = field_of(index, single=single)
            tokens = self.tokenizer.encode(text, pair, truncate=truncate, field=field)
            if not tokens.ids:  # blanks, for a tokenizer that adds no special tokens
                raise InvalidRequest(f"{field} has no tokens: it must hold more than blanks")
            encoded.append(tokens)
        return encoded

    def _prediction(self, logits: Floats, request: PredictRequest) -> list[Prediction]:
        scores = probabilities(logits)
        best = int(scores.argmax())
        self.metrics.predicted(self.bundle.manifest.labels[best], float(scores[best]))
        return ranked(logits if request.raw_scores else scores, self.bundle.manifest.labels, request.top_k)

    def _refused(self, error: RequestError) -> RequestError:
        self.metrics.rejected(error.reason)
        return error

    def _predictor(self, threads: int) -> Predictor:
        session = Session(self.bundle.model_path, self.bundle.plan.provider, threads)
        return Predictor(self.tokenizer, session, self.bundle.manifest.labels)

    def _prepare_metrics(self) -> None:
        manifest, plan = self.bundle.manifest, self.bundle.plan
        self.metrics.prepare(manifest.labels)
        self.metrics.model_info.labels(
            manifest.name, manifest.version, manifest.task, plan.variant, plan.provider, self.bundle.digest
        ).set(1)


def _runner(predictor: Predictor) -> Any:
    def run(batch: Sequence[Tokens]) -> list[Floats]:
        logits = predictor.logits(batch)
        if not np.isfinite(logits).all():
            raise FloatingPointError("logits are not finite")
        return list(logits)

    return run


async def _unless_gone(work: Any, incoming: Incoming) -> list[Floats]:
    """Await the answer, but drop the work when the client closes its connection. Raises ClientGone."""
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(incoming.gone())
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            with suppress(asyncio.CancelledError):
                await answer
            raise ClientGone("the client closed its connection")
        result: list[Floats] = answer.result()
        return result
    finally:
        gone.cancel()
        answer.cancel()


def _error(error: RequestError) -> Response:
    headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if isinstance(error, Overloaded) else None
    if isinstance(error, InferenceFailed):
        logger.error("inference failed: %s", error)
    body = {"error": str(error), "error_type": error.error_type}
    return Response(to_json(body), status_code=error.status, headers=headers, media_type="application/json")
