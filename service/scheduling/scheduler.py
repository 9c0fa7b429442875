"""Token-aware batching: a free slot takes the oldest waiting item and fills its batch with those nearest in length.

A padded batch costs its size times its longest item, so items are batched by length, not by arrival. Nothing waits for
a timer: an idle slot serves at once, and batches grow only while all slots are busy. While a batch's worth of tokens
waits, one batch is formed ahead for each busy slot, which then need not wait for the event loop. Such a batch counts as
waiting until a slot is free. All state belongs to the event loop, so nothing is locked; only runners work in threads.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from queue import SimpleQueue
from typing import Generic, NoReturn, TypeAlias, TypeVar

from bentune.bundle.errors import (
    ClientGone,
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    RequestError,
    ShuttingDown,
    TooLarge,
)
from service.scheduling.batch import BatchShape
from service.scheduling.drain_rate import DrainRate
from service.scheduling.queue import Ahead, QueueLimits, WaitingRoom

Item = TypeVar("Item")
_ResultT = TypeVar("_ResultT")

Runner: TypeAlias = Callable[[Sequence[Item]], Sequence[_ResultT]]
"""Computes one batch in a thread: one result per item, in the items' order."""

DEADLINE_SHARE = 0.6
"""Largest expected wait of a request, as a share of the time to its deadline. It is below 1 because the drain rate is
an estimate."""


class Observer:
    """Observer of the scheduler, called on the event loop. This one does nothing; the metrics override it."""

    def batch_computed(self, n_items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Note a batch of `n_items` items, computed in `seconds`.

        It has `tokens` tokens, and `padded_tokens` with padding.
        """

    def queued(self, seconds: float) -> None:
        """Note an item whose computation started `seconds` after it was submitted."""

    def changed(self, waiting_items: int, waiting_tokens: int, busy_slots: int) -> None:
        """Note the present state of the queue and the slots."""

    def rejected(self, reason: str) -> None:
        """Note a submission without an answer, of any size; `reason` is the error's."""


@dataclass(eq=False, slots=True)
class _Request(Generic[Item, _ResultT]):
    """One submission.

    A waiting entry is (request, index). An entry object that the request holds too would make each request a reference
    cycle, and cycles cost pauses of the garbage collector under load.
    """

    items: Sequence[tuple[Item, int]]
    deadline: float
    submitted: float
    answer: asyncio.Future[list[_ResultT]]
    results: dict[int, _ResultT] = field(default_factory=dict)


_Batch: TypeAlias = list[tuple[_Request[Item, _ResultT], int]]


@dataclass(frozen=True, slots=True)
class _Computed(Generic[Item, _ResultT]):
    """Result of a batch: an outcome for each entry that still needed an answer."""

    batch: _Batch[Item, _ResultT]
    outcomes: list[_ResultT | InferenceFailed]
    started: float
    seconds: float


class Scheduler(Generic[Item, _ResultT]):
    """Scheduler that runs submitted items in batches on its slots. Use it from one event loop only.

    `runners` has one runner per slot, each with its own share of the cores. `wide` is a runner with all the cores: it
    computes a lone item that arrives while all slots are idle, and occupies all of them. `clock` returns seconds, and
    is called in threads too. `executor` runs the runners and is shut down with the scheduler; by default it has one
    thread per slot.
    """

    def __init__(
        self,
        runners: Sequence[Runner[Item, _ResultT]],
        *,
        limits: QueueLimits,
        shape: BatchShape,
        wide: Runner[Item, _ResultT] | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        if not runners:
            raise ValueError("a scheduler needs at least one runner")
        self._runners: SimpleQueue[Runner[Item, _ResultT]] = SimpleQueue()
        for runner in runners:
            self._runners.put(runner)
        self._slots = len(runners)
        # Each slot has two seats: for the batch that it computes, and for the next one.
        self._seats, self._taken = 2 * len(runners), 0
        self._limits = limits
        self._shape = shape
        self._wide = wide
        self._observer = observer or Observer()
        self._clock = clock
        self._executor = executor or ThreadPoolExecutor(max_workers=len(runners), thread_name_prefix="slot")
        self._room: WaitingRoom[tuple[_Request[Item, _ResultT], int]] = WaitingRoom()
        self._ahead: Ahead[tuple[_Request[Item, _ResultT], int]] = Ahead()
        self._computing: dict[asyncio.Future[_Computed[Item, _ResultT]], _Batch[Item, _ResultT]] = {}
        self._rate = DrainRate(self._slots)
        self._draining = False

    @property
    def waiting_items(self) -> int:
        """Items admitted and not yet given to a slot."""
        return len(self._room) + len(self._ahead)

    @property
    def waiting_tokens(self) -> int:
        """Tokens of the waiting items."""
        return self._room.tokens + self._ahead.tokens

    @property
    def busy_slots(self) -> int:
        """Slots with a batch; all of them while `wide` runs."""
        return min(self._taken, self._slots)

    async def submit(self, items: Sequence[tuple[Item, int]], *, deadline: float | None = None) -> list[_ResultT]:
        """Compute `items`, and return one result per item, in order.

        Each item comes with its length in tokens, at least 1. All of them are admitted, or none; when one fails, all
        fail. `deadline` is a time on the scheduler's clock. A cancelled submission leaves the queue at once; items that
        already run are computed and discarded.

        Raises Overloaded, TooLarge, ShuttingDown, DeadlineExceeded or InferenceFailed.
        """
        if not items or min(tokens for _, tokens in items) < 1:
            raise ValueError("a submission needs at least one item, and each item at least one token")
        self._admit(len(items), sum(tokens for _, tokens in items), deadline)
        lone = len(items) == 1 and self.busy_slots == 0
        loop = asyncio.get_running_loop()
        now = self._clock()
        request = _Request(items, math.inf if deadline is None else deadline, now, answer=loop.create_future())
        for index, (_, tokens) in enumerate(items):
            self._room.add((request, index), tokens)
        self._dispatch(self._wide if lone else None)
        timer = None if deadline is None else loop.call_later(deadline - now, self._expire, request)
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._withdraw(request)
            self._observer.rejected(ClientGone.reason)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def drain(self, timeout_s: float | None = None) -> None:
        """Stop admitting, wait for the admitted items, then `close`.

        The wait takes at most `timeout_s` seconds.
        """
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._computing:
                    await asyncio.wait(self._computing)
        self.close()

    def close(self) -> None:
        """Stop admitting, and fail unfinished requests with ShuttingDown.

        The executor is shut down without waiting.
        """
        self._draining = True
        for request, _ in [*self._room, *chain.from_iterable(self._computing.values())]:
            self._refuse(request, ShuttingDown("the server shut down before this request was done"))
        self._executor.shutdown(wait=False)

    def require_room(self, tokens: int, deadline: float) -> None:
        """Raise and count Overloaded when an item of `tokens` tokens may not wait now.

        An item that exceeds the limits of an empty queue is left to `submit`. Call it before a request is parsed and
        encoded, to spend nothing on one that would be refused.
        """
        fits = self._limits.admit(1, tokens)
        if fits and not self._limits.admit(self.waiting_items + 1, self.waiting_tokens + tokens):
            self._reject(self._overloaded("the queue is full"))
        self._require_time(tokens, deadline)

    def _require_time(self, tokens: int, deadline: float | None) -> None:
        """Raise and count Overloaded for a request that would miss its deadline.

        Computing it would only delay other requests.
        """
        left = math.inf if deadline is None else deadline - self._clock()
        if self.waiting_items and self._rate.seconds(self.waiting_tokens + tokens) > DEADLINE_SHARE * left:
            self._reject(self._overloaded("the queue is longer than the time that this request has"))

    def _admit(self, items: int, tokens: int, deadline: float | None) -> None:
        """Raise and count the error of a submission that may not wait.

        It has `items` items with `tokens` tokens in all.
        """
        if self._draining:
            self._reject(ShuttingDown("the server is shutting down"))
        if not self._limits.admit(items, tokens):
            most = f"{self._limits.max_items} inputs and {self._limits.max_tokens} tokens"
            self._reject(TooLarge(f"{items} inputs with {tokens} tokens in one request; send at most {most}"))
        if not self._limits.admit(self.waiting_items + items, self.waiting_tokens + tokens):
            self._reject(self._overloaded("the queue is full"))
        self._require_time(tokens, deadline)

    def _overloaded(self, why: str) -> Overloaded:
        retry_after_s = self._rate.retry_after_s(self.waiting_tokens)
        return Overloaded(f"{why}; retry after {math.ceil(retry_after_s)} s", retry_after_s)

    def _reject(self, error: RequestError) -> NoReturn:
        self._observer.rejected(error.reason)
        raise error

    def _dispatch(self, wide: Runner[Item, _ResultT] | None = None) -> None:
        """Give every free seat a batch, as long as one can be formed.

        With `wide`, a batch gets that runner and all seats.
        """
        while self._room and self._seat_is_free():
            batch = self._room.take(self._shape, max(self._slots - self._taken, 1))
            now = self._clock()
            for request, _ in batch:
                if now >= request.deadline:
                    self._expire(request)
            # A cancelled answer is done too, but its task withdraws it only when it runs next.
            batch = [(request, index) for request, index in batch if not request.answer.done()]
            if batch:
                self._start(batch, wide)
        self._tell()

    def _seat_is_free(self) -> bool:
        """Return whether a batch may be formed now.

        For an idle slot, at once; ahead only while a batch's worth of tokens waits. With equal lengths a batch formed
        ahead is then full. With mixed lengths the padding bound may leave it emptier than if later items had joined.
        """
        if self._taken < self._slots:
            return True
        return self._taken < self._seats and self._room.tokens >= self._shape.token_budget

    def _start(self, batch: _Batch[Item, _ResultT], wide: Runner[Item, _ResultT] | None) -> None:
        seats, slots = (self._seats, self._slots) if wide else (1, 1)
        try:
            computing = asyncio.get_running_loop().run_in_executor(self._executor, self._compute, batch, wide)
        except RuntimeError as error:  # No thread can be started; only a batch that runs takes a seat.
            for request, _ in batch:
                self._refuse(request, InferenceFailed(f"the batch could not be started: {error}"))
            return
        if self._taken >= self._slots:
            self._ahead.add(computing, [(entry, entry[0].items[entry[1]][1]) for entry in batch])
        self._taken += seats
        self._computing[computing] = batch
        computing.add_done_callback(partial(self._finish, seats, slots))

    def _compute(self, batch: _Batch[Item, _ResultT], wide: Runner[Item, _ResultT] | None) -> _Computed[Item, _ResultT]:
        """Run in a thread the entries of `batch` that still need an answer.

        No other batch uses its runner meanwhile.
        """
        batch = [(request, index) for request, index in batch if not request.answer.done()]
        started = self._clock()
        runner = wide or self._runners.get()
        try:
            outcomes = _outcomes(runner, [request.items[index][0] for request, index in batch])
        finally:
            if runner is not wide:
                self._runners.put(runner)
        return _Computed(batch, outcomes, started, self._clock() - started)

    def _finish(self, seats: int, slots: int, computing: asyncio.Future[_Computed[Item, _ResultT]]) -> None:
        del self._computing[computing]
        self._ahead.slot_freed_by(computing)
        self._taken -= seats
        computed = computing.result()
        for (request, index), outcome in zip(computed.batch, computed.outcomes, strict=True):
            if isinstance(outcome, InferenceFailed):
                self._refuse(request, outcome)
                continue
            request.results[index] = outcome
            if len(request.results) == len(request.items) and not request.answer.done():
                request.answer.set_result([request.results[i] for i in range(len(request.items))])
        self._dispatch()
        self._record(computed, slots)

    def _record(self, computed: _Computed[Item, _ResultT], slots: int) -> None:
        if not computed.batch:
            return
        lengths = [request.items[index][1] for request, index in computed.batch]
        tokens, padded = sum(lengths), len(lengths) * max(lengths)
        self._rate.record(tokens, computed.seconds * slots)
        self._observer.batch_computed(len(lengths), tokens, padded, computed.seconds)
        for request, _ in computed.batch:
            self._observer.queued(computed.started - request.submitted)

    def _expire(self, request: _Request[Item, _ResultT]) -> None:
        self._refuse(request, DeadlineExceeded("the deadline passed before the answer was ready"))

    def _refuse(self, request: _Request[Item, _ResultT], error: RequestError) -> None:
        """Fail `request` with `error`, unless it already has an answer.

        Its waiting items leave the queue.
        """
        if not request.answer.done():
            request.answer.set_exception(error)
            self._observer.rejected(error.reason)
            self._withdraw(request)

    def _withdraw(self, request: _Request[Item, _ResultT]) -> None:
        for index in range(len(request.items)):
            self._room.discard((request, index))
            self._ahead.discard((request, index))
        self._tell()

    def _tell(self) -> None:
        self._observer.changed(self.waiting_items, self.waiting_tokens, self.busy_slots)


def _outcomes(run: Runner[Item, _ResultT], items: Sequence[Item]) -> list[_ResultT | InferenceFailed]:
    """Run a batch; when it raises, run each item alone, so that only a bad one fails."""
    if not items:
        return []
    try:
        results: list[_ResultT | InferenceFailed] = [*run(items)]
    except BaseException as error:  # Whatever a runner raises, its slot must become free.
        if len(items) > 1:
            return [outcome for item in items for outcome in _outcomes(run, [item])]
        failure = InferenceFailed(f"the model raised {type(error).__name__} on this input")
        failure.__cause__ = error
        return [failure]
    if len(results) != len(items):
        message = f"the model returned {len(results)} results for {len(items)} inputs"
        return [InferenceFailed(message) for _ in items]
    return results
