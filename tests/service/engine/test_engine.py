"""Sessions of a runtime: how many there are, on how many threads, and that each is replayed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bentune.bundle.manifest import open_bundle
from bentune.bundle.plan import CPU, FP32
from service.engine import engine as module
from service.engine.engine import Engine, runner
from service.engine.golden import Replay
from service.engine.predictor import Predictor
from service.engine.runtime import Runtime
from service.tasks.registry import task_of
from service.tasks.task import Task


@pytest.fixture(scope="module")
def task(tiny_bundle: Path) -> Task:
    return task_of(open_bundle(tiny_bundle))


@pytest.fixture
def make(tiny_bundle: Path, task: Task) -> Callable[..., Engine]:
    def engine(slots: int, threads: int) -> Engine:
        return Engine(tiny_bundle / "model/fp32.onnx", Runtime(FP32, CPU, slots, threads, 512), task)

    return engine


def threads_of(predictor: Predictor) -> int:
    threads: int = predictor.session._session.get_session_options().intra_op_num_threads
    return threads


def test_slots_of_one_thread_share_a_session_and_a_lone_text_gets_every_core(make: Callable[..., Engine]) -> None:
    engine = make(3, 1)
    assert len(engine.slots) == 3
    assert len({id(slot.session) for slot in engine.slots}) == 1
    assert [threads_of(slot) for slot in engine.slots] == [1, 1, 1]
    assert engine.wide is not None
    assert threads_of(engine.wide) == 3


def test_slots_of_several_threads_have_a_session_each(make: Callable[..., Engine]) -> None:
    """A pool of threads belongs to one session.

    With a shared session, two slots would wait for each other's threads.
    """
    engine = make(2, 2)
    assert len({id(slot.session) for slot in engine.slots}) == 2
    assert [threads_of(slot) for slot in engine.slots] == [2, 2]
    assert engine.wide is not None
    assert threads_of(engine.wide) == 4


@pytest.mark.parametrize("threads", [1, 3])
def test_a_single_slot_has_all_cores_already(threads: int, make: Callable[..., Engine]) -> None:
    engine = make(1, threads)
    assert [threads_of(slot) for slot in engine.slots] == [threads]
    assert engine.wide is None


@pytest.mark.parametrize(("slots", "threads"), [(1, 1), (3, 1), (1, 3), (2, 2)])
def test_what_is_counted_as_memory_is_loaded(slots: int, threads: int, make: Callable[..., Engine]) -> None:
    engine = make(slots, threads)
    sessions = {id(predictor.session) for predictor in [*engine.slots, engine.wide] if predictor}
    assert len(sessions) == Runtime(FP32, CPU, slots, threads, 512).copies


def test_every_session_is_replayed_once_and_the_worst_outcome_counts(
    make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    worst = Replay(12, 0.25, [3, 4])
    for slots, threads, outcomes in [
        (2, 2, [Replay(12, 0.0, []), worst, Replay(12, 9.0, [3])]),
        (2, 2, [Replay(12, 0.5, []), Replay(12, 0.1, [1]), Replay(12, 0.2, [1])]),
        (3, 1, [Replay(12, 0.0, []), worst]),
        (1, 1, [worst]),
    ]:
        left = list(outcomes)
        monkeypatch.setattr(module, "replay", lambda *_, left=left: left.pop(0))
        expected = max(outcomes, key=lambda one: (len(one.failed), one.largest_difference))
        assert make(slots, threads).replay([], "key") == expected
        assert left == []


def test_a_runner_gives_a_row_of_logits_for_each_item_and_no_nan(make: Callable[..., Engine]) -> None:
    predictor = make(1, 1).slots[0]
    tokens = [predictor.task.encoder.encode(text, truncate=True) for text in ("a cat", "bread and cheese")]
    rows = runner(predictor)(tokens)
    assert np.array_equal(np.stack(rows), predictor.logits(tokens))
    predictor.logits = lambda batch: np.array([[0.0, np.nan]], dtype=np.float32)  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match="not finite"):
        runner(predictor)(tokens)
