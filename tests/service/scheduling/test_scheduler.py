"""The scheduler's promises, with a fake clock, a fake model, and an executor that computes when the test says so."""

import asyncio
import gc
import math
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from bentune.bundle.errors import DeadlineExceeded, InferenceFailed, Overloaded, ShuttingDown, TooLarge
from service.scheduling.batch import BatchShape
from service.scheduling.queue import QueueLimits
from service.scheduling.scheduler import Observer, Scheduler

ROOMY = QueueLimits(max_items=1000, max_tokens=100_000)
LOOSE = BatchShape(token_budget=1000, padding_bound=1.0, max_items=100)
shapes = st.builds(
    BatchShape,
    token_budget=st.integers(1, 400),
    padding_bound=st.sampled_from([0.0, 0.05, 0.15, 0.5, 1.0]),
    max_items=st.integers(1, 12),
)


# The scheduler, on one event loop.


class Clock:
    now = 100.0
    a_batch_takes = 0.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Answers "x" with "x!", refuses what is in `bad`, and remembers each batch it saw."""

    def __init__(self, clock: Clock, bad: Sequence[str] = ()) -> None:
        self.clock = clock
        self.bad = bad
        self.meanwhile: Callable[[], object] = lambda: None
        self.batches: list[list[str]] = []

    def __call__(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.clock.now += self.clock.a_batch_takes
        self.meanwhile()
        for item in items:
            if item in self.bad:
                raise RuntimeError(f"cannot compute {item}")
        return [item + "!" for item in items]


class HeldExecutor(Executor):
    """Computes a batch when the test asks for it."""

    def __init__(self) -> None:
        self.held: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.is_shut = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self.held.append((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.is_shut = True


class Log(Observer):
    def __init__(self) -> None:
        self.computed: list[tuple[int, int, int]] = []
        self.seconds: list[float] = []
        self.waits: list[float] = []
        self.reasons: list[str] = []

    def batch_computed(self, n_items: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        self.computed.append((n_items, tokens, padded_tokens))
        self.seconds.append(seconds)

    def queued(self, seconds: float) -> None:
        self.waits.append(seconds)

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Rig:
    """A scheduler whose batches are held until `finish`."""

    def __init__(
        self,
        slots: int = 1,
        *,
        wide: bool = False,
        limits: QueueLimits = ROOMY,
        shape: BatchShape = LOOSE,
        bad: Sequence[str] = (),
    ) -> None:
        self.clock = Clock()
        self.models = [Model(self.clock, bad) for _ in range(slots)]
        self.wide = Model(self.clock, bad)
        self.executor = HeldExecutor()
        self.log = Log()
        self.scheduler: Scheduler[str, str] = Scheduler(
            self.models,
            limits=limits,
            shape=shape,
            wide=self.wide if wide else None,
            observer=self.log,
            clock=self.clock,
            executor=self.executor,
        )

    @property
    def batches(self) -> list[list[str]]:
        """Batches that the slots' models computed."""
        return [batch for model in self.models for batch in model.batches]

    @property
    def waiting(self) -> tuple[int, int]:
        return self.scheduler.waiting_items, self.scheduler.waiting_tokens

    async def submit(self, *items: tuple[str, int], deadline: float | None = None) -> asyncio.Task[list[str]]:
        """Submit, and return when the items wait or compute."""
        task = asyncio.create_task(self.scheduler.submit(items, deadline=deadline))
        await asyncio.sleep(0)
        return task

    async def finish(self, place: int = 0, *, after_s: float = 0.0) -> None:
        """Compute the batch that has been held for longest, or the one at `place`."""
        self.clock.a_batch_takes = after_s
        future, compute = self.executor.held.pop(place)
        future.set_result(compute())
        await settle()

    async def finish_all(self) -> None:
        while self.executor.held:
            await self.finish()

    def assert_at_rest(self) -> None:
        assert self.waiting == (0, 0)
        assert self.scheduler.busy_slots == 0
        assert not self.executor.held


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run `test`; what should end and does not is a failure, not a hang."""
    asyncio.run(asyncio.wait_for(test, 10))


def test_an_idle_slot_serves_at_once_and_a_freed_one_takes_the_oldest_and_its_nearest() -> None:
    async def test() -> None:
        rig = Rig(shape=BatchShape(token_budget=200, padding_bound=0.1, max_items=8))
        tasks = [await rig.submit(("first", 30))]
        assert (rig.scheduler.busy_slots, rig.waiting) == (1, (0, 0))
        tasks += [await rig.submit(item) for item in [("long", 100), ("short", 10), ("longer", 105), ("shorter", 9)]]
        assert (rig.scheduler.busy_slots, rig.waiting) == (1, (4, 224)), "what is formed ahead waits on"
        assert len(rig.executor.held) == 2, "one is formed ahead where 200 tokens wait"
        await rig.finish_all()
        assert rig.batches == [["first"], ["long"], ["short", "shorter"], ["longer"]]
        assert [await task for task in tasks] == [["first!"], ["long!"], ["short!"], ["longer!"], ["shorter!"]]
        rig.assert_at_rest()

    run(test())


def test_the_observer_hears_of_batches_and_waits() -> None:
    async def test() -> None:
        rig = Rig()
        tasks = [await rig.submit(("a", 10)), await rig.submit(("b", 20), ("c", 16))]
        await rig.finish(after_s=0.5)
        await rig.finish(after_s=0.25)
        await asyncio.gather(*tasks)
        assert rig.log.computed == [(1, 10, 10), (2, 36, 40)]
        assert rig.log.waits == [0, 0.5, 0.5]
        assert rig.log.seconds == [0.5, 0.25]
        assert rig.log.reasons == []

    run(test())


def test_results_come_in_the_order_of_the_submission_not_of_the_batches() -> None:
    async def test() -> None:
        rig = Rig(slots=2, shape=BatchShape(token_budget=100, padding_bound=0.0, max_items=2))
        items = [(f"{length}-{i}", length) for i, length in enumerate([5, 9, 5, 7, 9, 5, 5])]
        task = await rig.submit(*items)
        while rig.executor.held:
            await rig.finish(len(rig.executor.held) - 1)
        assert await task == [item + "!" for item, _ in items]
        rig.assert_at_rest()

    run(test())


def test_many_items_spread_over_all_idle_slots() -> None:
    async def test() -> None:
        rig = Rig(slots=3)
        task = await rig.submit(*[(str(i), 10) for i in range(9)])
        assert rig.scheduler.busy_slots == 3
        await rig.finish_all()
        await task
        assert rig.log.computed == [(3, 30, 30)] * 3
        assert all(len(model.batches) == 1 for model in rig.models), "each slot computes with its own runner"

    run(test())


def test_the_wide_runner_serves_a_lone_item_and_holds_all_slots() -> None:
    async def test() -> None:
        rig = Rig(slots=2, wide=True)
        lone = await rig.submit(("lone", 10))
        assert rig.scheduler.busy_slots == 2
        second = await rig.submit(("second", 10))
        assert rig.waiting == (1, 10)
        await rig.finish()
        assert rig.scheduler.busy_slots == 1, "the second did not find everything idle"
        third = await rig.submit(("third", 10))
        assert rig.scheduler.busy_slots == 2
        await rig.finish_all()
        pair = await rig.submit(("one", 10), ("two", 10))
        await rig.finish_all()
        await asyncio.gather(lone, second, third, pair)
        assert rig.wide.batches == [["lone"]]
        assert sorted(rig.batches) == [["one"], ["second"], ["third"], ["two"]]
        rig.assert_at_rest()
        again = await rig.submit(("again", 10))
        await rig.finish()
        assert await again == ["again!"]
        assert rig.wide.batches == [["lone"], ["again"]]

    run(test())


def test_a_cancelled_submission_leaves_the_queue_and_is_never_computed() -> None:
    async def test() -> None:
        rig = Rig()
        running = await rig.submit(("running", 10))
        gone = await rig.submit(("gone", 10), ("gone too", 12))
        stays = await rig.submit(("stays", 10))
        gone.cancel()
        await asyncio.sleep(0)
        assert rig.waiting == (1, 10)
        await rig.finish_all()
        assert rig.batches == [["running"], ["stays"]]
        assert (await running, await stays) == (["running!"], ["stays!"])
        assert gone.cancelled()
        assert rig.log.reasons == ["cancelled"]
        rig.assert_at_rest()

    run(test())


def test_a_task_cancelled_in_the_tick_in_which_its_slot_frees_is_not_computed() -> None:
    async def test() -> None:
        rig = Rig()
        await rig.submit(("running", 10))
        gone = await rig.submit(("gone", 10))
        future, compute = rig.executor.held.pop()
        future.set_result(compute())
        asyncio.get_running_loop().call_soon(gone.cancel)  # after the answer came in, before the batch is formed
        await settle()
        assert rig.batches == [["running"]]
        rig.assert_at_rest()

    run(test())


def test_what_runs_for_a_cancelled_submission_is_thrown_away() -> None:
    async def test() -> None:
        rig = Rig(shape=BatchShape(token_budget=100, padding_bound=1.0, max_items=1))
        gone = await rig.submit(("running", 10), ("waiting", 10))
        rig.models[0].meanwhile = gone.cancel
        await rig.finish()
        assert rig.batches == [["running"]]
        rig.assert_at_rest()

    run(test())


def test_what_was_given_to_a_slot_and_did_not_start_is_not_computed_for_those_who_left() -> None:
    async def test() -> None:
        rig = Rig(shape=BatchShape(token_budget=20, padding_bound=1.0, max_items=2))
        running = await rig.submit(("running", 10))
        gone, stays = await rig.submit(("gone", 10)), await rig.submit(("stays", 12))
        late = await rig.submit(("late", 10), ("late too", 10), deadline=rig.clock.now + 0.02)
        assert rig.waiting == (4, 42)
        assert len(rig.executor.held) == 2, "one batch is formed ahead: what is behind it may still be better combined"
        gone.cancel()
        await asyncio.sleep(0)
        assert rig.waiting == (3, 32), "it left what was formed ahead"
        with pytest.raises(DeadlineExceeded):
            await late
        await rig.finish_all()
        assert (await running, await stays) == (["running!"], ["stays!"])
        assert rig.batches == [["running"], ["stays"]]
        assert rig.log.computed == [(1, 10, 10), (1, 12, 12)]
        rig.assert_at_rest()

    run(test())


def test_a_batch_that_nobody_waits_for_any_more_costs_nothing() -> None:
    async def test() -> None:
        rig = Rig(shape=BatchShape(token_budget=10, padding_bound=1.0, max_items=1))
        running, gone = await rig.submit(("running", 10)), await rig.submit(("gone", 10))
        assert (len(rig.executor.held), rig.waiting) == (2, (1, 10))
        gone.cancel()
        await rig.finish_all()
        assert await running == ["running!"]
        assert rig.batches == [["running"]]
        assert rig.log.computed == [(1, 10, 10)]
        rig.assert_at_rest()

    run(test())


def test_a_batch_is_formed_ahead_for_each_slot_and_only_where_a_batch_waits() -> None:
    async def test() -> None:
        rig = Rig(slots=2, shape=BatchShape(token_budget=20, padding_bound=1.0, max_items=9))
        await rig.submit(("a", 10))
        await rig.submit(("b", 10))
        await rig.submit(("c", 10))
        assert (len(rig.executor.held), rig.waiting) == (2, (1, 10)), "half a batch waits for more"
        await rig.submit(("d", 10))
        assert (len(rig.executor.held), rig.waiting) == (3, (2, 20)), "which wait on: both slots are busy"
        await rig.submit(*[("e", 10)] * 6)
        assert (len(rig.executor.held), rig.waiting) == (4, (8, 80)), "one for each slot and no more"
        assert rig.scheduler.busy_slots == 2
        await rig.finish()
        assert (len(rig.executor.held), rig.waiting) == (4, (6, 60))
        await rig.finish(3)
        assert (len(rig.executor.held), rig.waiting) == (4, (4, 40)), "done out of turn, by another executor"
        await rig.finish_all()
        assert sorted(rig.log.computed) == [(1, 10, 10)] * 2 + [(2, 20, 20)] * 4
        rig.assert_at_rest()

    run(test())


def test_what_is_formed_ahead_counts_for_the_limits_and_the_estimates() -> None:
    """Work formed ahead waits until a slot is free, whatever it is called.

    An autoscaler and clients see it that way.
    """

    async def test() -> None:
        rig = Rig(shape=BatchShape(token_budget=100, padding_bound=1.0, max_items=9), limits=QueueLimits(9, 200))
        await rig.submit(("measured", 100))
        await rig.finish(after_s=2.0)  # 50 tokens a second
        await rig.submit(("running", 5))
        await rig.submit(("ahead", 100))
        assert (len(rig.executor.held), rig.waiting) == (2, (1, 100))
        now = rig.clock.now
        rig.scheduler.require_room(50, now + 5.1)  # 3 s of work, 0.6 x 5.1 s at most
        with pytest.raises(Overloaded, match="longer than the time") as refusal:
            rig.scheduler.require_room(50, now + 4.9)
        assert refusal.value.retry_after_s == pytest.approx(2.0)
        with pytest.raises(Overloaded, match="the queue is full"):
            rig.scheduler.require_room(101, math.inf)
        with pytest.raises(Overloaded, match="the queue is full"):
            await rig.scheduler.submit([("one more", 101)])
        await rig.finish()
        assert rig.waiting == (0, 0), "its slot is free"
        await rig.finish()
        rig.assert_at_rest()

    run(test())


class NoThreads(HeldExecutor):
    """Cannot start its first thread, as ThreadPoolExecutor in a container of too few processes."""

    tried = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not self.tried:
            self.tried = True
            raise RuntimeError("can't start new thread")
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize("wide", [True, False])
def test_a_batch_that_cannot_be_started_fails_and_its_slot_stays(wide: bool) -> None:
    async def test() -> None:
        rig = Rig(slots=2, wide=wide)
        executor = NoThreads()
        rig.executor = executor
        rig.scheduler = Scheduler(
            rig.models, limits=ROOMY, shape=LOOSE, wide=rig.wide if wide else None, observer=rig.log, executor=executor
        )
        with pytest.raises(InferenceFailed, match="could not be started: can't start new thread"):
            await rig.scheduler.submit([("x", 10)])
        rig.assert_at_rest()
        task = await rig.submit(("y", 10), ("z", 10))
        assert rig.scheduler.busy_slots == 2, "both slots take something"
        await rig.finish_all()
        assert await task == ["y!", "z!"]
        assert rig.log.reasons == ["failed"]
        rig.assert_at_rest()

    run(test())


def test_nothing_is_formed_ahead_of_the_wide_runner() -> None:
    async def test() -> None:
        rig = Rig(slots=2, wide=True, shape=BatchShape(token_budget=20, padding_bound=1.0, max_items=9))
        await rig.submit(("lone", 10))
        await rig.submit(*[("next", 10)] * 4)
        assert (len(rig.executor.held), rig.waiting) == (1, (4, 40)), "it has all the cores"
        await rig.finish_all()
        assert rig.log.computed == [(1, 10, 10), (2, 20, 20), (2, 20, 20)]
        rig.assert_at_rest()

    run(test())


def test_what_is_past_its_deadline_when_the_batch_is_formed_is_not_computed() -> None:
    async def test() -> None:
        rig = Rig()
        await rig.submit(("running", 10))
        late = await rig.submit(("late", 10), ("late too", 20), deadline=rig.clock.now + 1000)
        stays = await rig.submit(("stays", 10), deadline=rig.clock.now + 1001)
        await rig.finish(after_s=1000)
        with pytest.raises(DeadlineExceeded):
            await late
        await rig.finish_all()
        assert await stays == ["stays!"]
        assert rig.batches == [["running"], ["stays"]]
        assert rig.log.reasons == ["deadline"]
        rig.assert_at_rest()

    run(test())


def test_a_deadline_that_has_passed_before_the_submission_costs_nothing() -> None:
    async def test() -> None:
        rig = Rig(slots=2, wide=True)
        with pytest.raises(DeadlineExceeded):
            await rig.scheduler.submit([("late", 10)], deadline=rig.clock.now)
        rig.assert_at_rest()
        assert rig.log.reasons == ["deadline"]

    run(test())


@pytest.mark.parametrize("busy", [True, False], ids=["waiting", "running"])
def test_the_deadline_is_answered_when_it_passes(busy: bool) -> None:
    async def test() -> None:
        rig = Rig(shape=BatchShape(token_budget=100, padding_bound=1.0, max_items=1))
        if busy:
            await rig.submit(("running", 10))
        started = time.monotonic()
        late = await rig.submit(("late", 10), ("late too", 10), deadline=rig.clock.now + 0.05)
        assert rig.waiting == ((2, 20) if busy else (1, 10))
        with pytest.raises(DeadlineExceeded):
            await late
        assert 0.04 <= time.monotonic() - started < 1
        assert rig.waiting == (0, 0)
        assert rig.scheduler.busy_slots == 1, "what computes goes on"
        await rig.finish()
        assert rig.log.reasons == ["deadline"]
        rig.assert_at_rest()

    run(test())


@pytest.mark.parametrize(
    ("limits", "admitted", "refused"),
    [(QueueLimits(3, 1000), 1, 3), (QueueLimits(100, 50), 4, 2)],
    ids=["items", "tokens"],
)
def test_admission_is_all_or_nothing(limits: QueueLimits, admitted: int, refused: int) -> None:
    async def test() -> None:
        rig = Rig(limits=limits)
        tasks = [await rig.submit(("running", 10))]
        tasks.append(await rig.submit(*[("in", 10)] * admitted))
        with pytest.raises(Overloaded) as refusal:
            await rig.scheduler.submit([("out", 10)] * refused)
        assert refusal.value.retry_after_s == 1.0, "nothing was measured yet"
        assert rig.waiting == (admitted, 10 * admitted)
        tasks.append(await rig.submit(*[("in", 10)] * (refused - 1)))  # exactly at the limit
        await rig.finish_all()
        await asyncio.gather(*tasks)
        assert rig.log.reasons == ["overloaded"]
        assert ["out"] not in rig.batches
        rig.assert_at_rest()

    run(test())


@pytest.mark.parametrize(
    ("slots", "wide", "seconds", "retry_after_s"),
    [
        (1, False, 2.0, 6.0),  # 100 tokens in 2 s on one slot; 300 wait
        (2, False, 2.0, 3.0),  # the same on each of two slots
        (2, True, 2.0, 6.0),  # a wide batch takes the time of both
        (1, False, 0.1, 1.0),
        (1, False, 300.0, 60.0),
    ],
)
def test_retry_after_is_the_queue_at_the_measured_rate(
    slots: int, wide: bool, seconds: float, retry_after_s: float
) -> None:
    async def test() -> None:
        rig = Rig(slots, wide=wide, limits=QueueLimits(100, 300))
        await rig.submit(("measured", 100))
        await rig.finish(after_s=seconds)
        await rig.submit(*[("running", 5)] * slots)
        await rig.submit(("waiting", 100), ("waiting", 200))
        with pytest.raises(Overloaded) as refusal:
            await rig.scheduler.submit([("one more", 1)])
        assert refusal.value.retry_after_s == pytest.approx(retry_after_s)
        await rig.finish_all()

    run(test())


def test_what_would_only_miss_its_deadline_is_refused_at_once() -> None:
    async def test() -> None:
        rig = Rig()
        await rig.submit(("measured", 100))
        await rig.finish(after_s=2.0)  # 50 tokens a second
        await rig.submit(("running", 5))
        await rig.submit(("waiting", 290))
        now = rig.clock.now
        with pytest.raises(Overloaded, match="longer than the time") as refusal:
            await rig.scheduler.submit([("late", 10)], deadline=now + 9.9)  # 6 s of work, 0.6 x 9.9 s at most
        assert refusal.value.retry_after_s == pytest.approx(5.8)
        task = await rig.submit(("in time", 10), deadline=now + 10.1)
        await rig.finish_all()
        assert await task == ["in time!"]
        assert rig.log.reasons == ["overloaded"]

    run(test())


def test_a_deadline_that_the_queue_will_outlast_is_refused_before_anything_is_spent() -> None:
    async def test() -> None:
        rig = Rig()
        await rig.submit(("measured", 100))
        await rig.finish(after_s=2.0)  # 50 tokens a second
        await rig.submit(("running", 5))
        await rig.submit(("waiting", 290))
        rig.scheduler.require_room(10, rig.clock.now + 10.1)
        with pytest.raises(Overloaded, match="longer than the time"):
            rig.scheduler.require_room(10, rig.clock.now + 9.9)
        assert rig.log.reasons == ["overloaded"]
        await rig.finish_all()

    run(test())


def test_an_empty_queue_admits_whatever_the_deadline() -> None:
    """The running batch may end at any moment.

    Measurements of other batches predict nothing about it.
    """

    async def test() -> None:
        rig = Rig()
        await rig.submit(("measured", 100))
        await rig.finish(after_s=2.0)
        task = await rig.submit(("long", 900), deadline=rig.clock.now + 1.0)
        await rig.finish_all()
        assert await task == ["long!"]

    run(test())


def test_room_can_be_asked_for_before_anything_is_spent() -> None:
    async def test() -> None:
        rig = Rig(limits=QueueLimits(max_items=10, max_tokens=100))
        rig.scheduler.require_room(100, math.inf)
        await rig.submit(("running", 10))
        await rig.submit(("waiting", 60))
        rig.scheduler.require_room(40, math.inf)
        with pytest.raises(Overloaded, match="the queue is full"):
            rig.scheduler.require_room(41, math.inf)
        rig.scheduler.require_room(101, math.inf)  # could never wait: `submit` says so in other words
        assert rig.log.reasons == ["overloaded"]
        await rig.finish_all()

    run(test())


@pytest.mark.parametrize("items", [[("x", 10)] * 4, [("x", 60), ("x", 41)]], ids=["items", "tokens"])
def test_what_could_never_wait_is_too_large(items: list[tuple[str, int]]) -> None:
    async def test() -> None:
        rig = Rig(limits=QueueLimits(max_items=3, max_tokens=100))
        with pytest.raises(TooLarge):
            await rig.scheduler.submit(items)
        assert rig.log.reasons == ["too_large"]
        rig.assert_at_rest()

    run(test())


@pytest.mark.parametrize("items", [[], [("x", 1), ("empty", 0)]])
def test_a_submission_without_tokens_is_a_mistake_of_the_caller(items: list[tuple[str, int]]) -> None:
    async def test() -> None:
        rig = Rig()
        with pytest.raises(ValueError, match="at least one token"):
            await rig.scheduler.submit(items)
        rig.assert_at_rest()

    run(test())


def test_a_bad_input_fails_alone() -> None:
    async def test() -> None:
        rig = Rig(bad=["bad secret"])
        await rig.submit(("running", 10))
        tasks = [await rig.submit((item, 10)) for item in ["good", "bad secret", "fine"]]
        await rig.finish_all()
        assert (await tasks[0], await tasks[2]) == (["good!"], ["fine!"])
        with pytest.raises(InferenceFailed, match="RuntimeError") as failure:
            await tasks[1]
        assert "secret" not in str(failure.value)
        assert isinstance(failure.value.__cause__, RuntimeError)
        assert rig.batches == [["running"], ["good", "bad secret", "fine"], ["good"], ["bad secret"], ["fine"]]
        assert rig.log.reasons == ["failed"]
        rig.assert_at_rest()

    run(test())


def test_one_failed_item_fails_its_submission_and_drops_what_of_it_waits() -> None:
    async def test() -> None:
        rig = Rig(bad=["bad"], shape=BatchShape(token_budget=100, padding_bound=1.0, max_items=1))
        task = await rig.submit(("bad", 10), ("good", 10), ("good", 10))
        await rig.finish()
        with pytest.raises(InferenceFailed):
            await task
        assert rig.batches == [["bad"]]
        assert rig.log.reasons == ["failed"]
        rig.assert_at_rest()

    run(test())


@pytest.mark.parametrize("answers", [["one"], ["one", "two", "three"]])
def test_a_wrong_number_of_results_fails_the_whole_batch(answers: list[str]) -> None:
    async def test() -> None:
        rig = Rig()
        rig.scheduler = Scheduler([lambda items: answers], limits=ROOMY, shape=LOOSE, executor=rig.executor)
        running = await rig.submit(*[("x", 10)] * len(answers))
        tasks = [await rig.submit(("a", 10)), await rig.submit(("b", 10))]
        await rig.finish_all()
        assert await running == answers
        for task in tasks:
            with pytest.raises(InferenceFailed, match=f"{len(answers)} results for 2 inputs"):
                await task
        rig.assert_at_rest()

    run(test())


def test_results_that_cannot_be_counted_fail_and_their_slot_comes_back() -> None:
    async def test() -> None:
        rig = Rig()
        answers: list[Any] = [None, None, None, ["again!"]]
        rig.scheduler = Scheduler([lambda items: answers.pop(0)], limits=ROOMY, shape=LOOSE, executor=rig.executor)
        task = await rig.submit(("a", 10), ("b", 10))
        await rig.finish()
        with pytest.raises(InferenceFailed, match="TypeError"):
            await task
        rig.assert_at_rest()
        again = await rig.submit(("again", 10))
        await rig.finish()
        assert await again == ["again!"]

    run(test())


@pytest.mark.parametrize("error", [StopIteration, SystemExit, asyncio.CancelledError])
def test_whatever_a_runner_raises_its_slot_comes_back(error: type[BaseException]) -> None:
    def explode(items: Sequence[str]) -> list[str]:
        raise error

    async def test() -> None:
        scheduler = Scheduler([explode], limits=ROOMY, shape=LOOSE)
        for _ in range(2):
            with pytest.raises(InferenceFailed, match=error.__name__):
                await scheduler.submit([("x", 10)])
        await scheduler.drain()

    run(test())


def test_draining_finishes_what_was_admitted_and_refuses_the_rest() -> None:
    async def test() -> None:
        rig = Rig()
        tasks = [await rig.submit((str(i), 10)) for i in range(3)]
        draining = asyncio.create_task(rig.scheduler.drain())
        await settle()
        with pytest.raises(ShuttingDown):
            await rig.scheduler.submit([("new", 10)])
        await rig.finish()
        assert not draining.done()
        assert not rig.executor.is_shut
        await rig.finish_all()
        await draining
        assert [await task for task in tasks] == [["0!"], ["1!"], ["2!"]]
        assert rig.executor.is_shut
        assert rig.log.reasons == ["shutting_down"]
        rig.assert_at_rest()

    run(test())


def test_a_drain_out_of_time_answers_the_rest_with_shutting_down() -> None:
    async def test() -> None:
        rig = Rig()
        tasks = [await rig.submit((str(i), 10)) for i in range(3)]
        await rig.scheduler.drain(0.02)
        for task in tasks:
            with pytest.raises(ShuttingDown):
                await task
        assert rig.waiting == (0, 0)
        assert rig.executor.is_shut
        await rig.finish_all()
        assert rig.batches == []
        assert rig.log.reasons == ["shutting_down"] * 3
        rig.assert_at_rest()

    run(test())


def test_an_idle_scheduler_drains_at_once_and_closing_twice_is_harmless() -> None:
    async def test() -> None:
        rig = Rig()
        await rig.scheduler.drain(0)
        rig.scheduler.close()
        assert rig.executor.is_shut
        with pytest.raises(ShuttingDown):
            await rig.scheduler.submit([("new", 10)])

    run(test())


class Thing:
    """An item, or a result, that can be watched going."""


def test_a_served_request_leaves_nothing_for_the_garbage_collector() -> None:
    async def test() -> None:
        executor = ThreadPoolExecutor()
        scheduler: Scheduler[Thing, Thing] = Scheduler(
            [lambda items: [Thing() for _ in items]] * 2, limits=ROOMY, shape=LOOSE, executor=executor
        )
        gc.disable()
        try:
            items = [(Thing(), 10) for _ in range(5)]
            results = await scheduler.submit(items, deadline=time.monotonic() + 100)
            gone = [weakref.ref(thing) for thing in [*(item for item, _ in items), *results]]
            del items, results
            executor.shutdown()  # a thread, and a tick of the loop, hold on to what they did last
            await settle()
            assert [reference() for reference in gone] == [None] * 10
        finally:
            gc.enable()

    run(test())


# Everything at once: any sequence of what clients, time and slots may do.

steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 4)),
        st.tuples(st.just("finish"), st.integers(0, 9), st.integers(0, 2)),
        st.tuples(st.just("cancel"), st.integers(0, 99), st.just(0)),
    ),
    max_size=30,
)


@examples(150)
@given(steps, shapes, st.integers(1, 3), st.booleans())
def test_every_item_is_computed_at_most_once_and_every_submission_gets_its_own_answer(
    steps: list[tuple[str, Any, int]], shape: BatchShape, slots: int, wide: bool
) -> None:
    async def test() -> None:
        rig = Rig(slots, wide=wide, shape=shape, limits=QueueLimits(max_items=12, max_tokens=300), bad=["5-0", "9-1"])
        tasks: list[tuple[list[str], asyncio.Task[list[str]]]] = []
        for step, what, extra in steps:
            if step == "submit":
                names = [f"{len(tasks)}-{i}" for i in range(len(what))]
                # Far enough on the real loop that only the fake clock can bring it about; 0 means none.
                deadline = rig.clock.now + 1000 * extra if extra else None
                tasks.append((names, await rig.submit(*zip(names, what, strict=True), deadline=deadline)))
            elif step == "finish" and rig.executor.held:
                await rig.finish(what % len(rig.executor.held), after_s=1000 * extra)
            elif step == "cancel" and tasks:
                tasks[what % len(tasks)][1].cancel()
                await settle()
            assert not rig.scheduler.waiting_items or rig.scheduler.busy_slots == slots, (
                "something waits for an idle slot"
            )
            assert rig.scheduler.waiting_items <= 12
            assert rig.scheduler.waiting_tokens <= 300
        await rig.finish_all()
        rig.assert_at_rest()

        refused: Counter[str] = Counter()
        for items, task in tasks:
            if task.cancelled():
                refused["cancelled"] += 1
            elif error := task.exception():
                refused[type(error).__name__] += 1
                assert not isinstance(error, InferenceFailed) or {"5-0", "9-1"} & set(items)
            else:
                assert task.result() == [item + "!" for item in items]
        assert sum(refused.values()) == len(rig.log.reasons)
        batches = rig.batches + rig.wide.batches
        assert all(len(batch) <= shape.max_items for batch in batches)
        computed = Counter(item for batch in batches for item in batch)
        retried = {item for batch in batches if {"5-0", "9-1"} & set(batch) for item in batch}
        assert all(count == 1 or item in retried for item, count in computed.items())
        finished = {item for items, task in tasks if not task.cancelled() and not task.exception() for item in items}
        assert finished <= set(computed)

    run(test())


def test_on_real_threads_each_gets_its_own_and_no_more_batches_run_than_slots() -> None:
    guard = threading.Lock()
    running = most = 0

    def model(items: Sequence[int]) -> list[int]:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.0005)
        with guard:
            running -= 1
        if any(item % 50 == 7 for item in items):
            raise ValueError
        return [item * 2 for item in items]

    async def client(scheduler: Scheduler[int, int], number: int, rng: random.Random) -> str:
        items = [number * 10 + i for i in range(rng.randint(1, 4))]
        submission = scheduler.submit([(item, rng.randint(1, 50)) for item in items])
        patience = rng.choice([0.001, 5])
        try:
            assert await asyncio.wait_for(submission, patience) == [item * 2 for item in items]
        except TimeoutError:
            assert patience < 5
            return "gone"
        except InferenceFailed:
            assert any(item % 50 == 7 for item in items)
            return "failed"
        return "served"

    async def test() -> None:
        shape = BatchShape(token_budget=200, padding_bound=0.3, max_items=8)
        scheduler = Scheduler([model, model], wide=model, limits=QueueLimits(10_000, 10**6), shape=shape)
        rng = random.Random(5)
        ends = Counter(await asyncio.gather(*[client(scheduler, number, rng) for number in range(400)]))
        assert ends["served"] > 100
        assert ends["gone"] > 0
        await scheduler.drain()
        assert (scheduler.waiting_items, scheduler.waiting_tokens, scheduler.busy_slots) == (0, 0, 0)
        assert most == 2

    run(test())
