"""Speed is that of the service's own scheduler: real batches within the budget, texts a second, a lone text's time."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bentune.bundle.manifest import open_bundle
from bentune.bundle.plan import CPU, FP32, Entry
from service.engine.predictor import Predictor
from service.engine.runtime import Runtime
from service.tasks.registry import task_of
from service.tasks.task import Task
from service.tasks.tokenizer import Tokens
from training.plan.speed import CLIENTS_PER_SLOT, LONE_ROWS, RowTraffic, measure
from training.tasks.rows import read_rows


@pytest.fixture(scope="module")
def task(tiny_bundle: Path) -> Task:
    return task_of(open_bundle(tiny_bundle))


@pytest.fixture(scope="module")
def traffic(tiny_run: Path, task: Task) -> RowTraffic:
    rows = read_rows(tiny_run / "data/test.parquet")
    return RowTraffic([task.encoder.encode(text, truncate=True) for text in rows.texts], seed=3)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Lengths of the rows of each batch that is computed."""
    seen: list[list[int]] = []
    real = Predictor.logits

    def logits(self: Predictor, batch: Sequence[Tokens]) -> Any:
        seen.append([len(row) for row in batch])
        return real(self, batch)

    monkeypatch.setattr(Predictor, "logits", logits)
    return seen


@pytest.fixture
def ask(tiny_bundle: Path, task: Task, traffic: RowTraffic) -> Callable[..., Entry]:
    def call(slots: int, threads: int, budget: int, seconds: float = 0.2) -> Entry:
        runtime = Runtime(FP32, CPU, slots, threads, budget)
        return measure(tiny_bundle / "model/fp32.onnx", runtime, task, traffic, 0.15, seconds)

    return call


def test_traffic_is_every_row_again_and_again_in_one_shuffled_order(traffic: RowTraffic) -> None:
    count = len(traffic.tokens)
    first = list(itertools.islice(traffic.rows(), 2 * count))
    assert sorted(map(id, first[:count])) == sorted(map(id, traffic.tokens))
    assert first[:count] == first[count:]
    assert first[:count] != list(traffic.tokens)
    assert first == list(itertools.islice(traffic.rows(), 2 * count)), "the same seed, the same order"
    assert first != list(itertools.islice(RowTraffic(traffic.tokens, seed=4).rows(), 2 * count))


def test_an_entry_is_what_was_asked_for_with_what_was_measured(ask: Callable[..., Entry]) -> None:
    entry = ask(2, 1, 128)
    assert (entry.variant, entry.provider, entry.slots, entry.threads, entry.token_budget) == (FP32, CPU, 2, 1, 128)
    assert entry.inputs_per_second > 10
    assert 0 < entry.lone_ms < 1000
    assert 0 <= entry.padding <= 0.15 + 1e-4


def test_batches_keep_the_budget_and_the_last_texts_come_alone(
    ask: Callable[..., Entry], batches: list[list[int]]
) -> None:
    entry = ask(1, 1, 96)
    busy, lone = batches[:-LONE_ROWS], batches[-LONE_ROWS:]
    assert all(len(batch) == 1 for batch in lone)
    assert max(len(batch) for batch in busy) > 1
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 96 for batch in busy)
    assert all(len(batch) <= CLIENTS_PER_SLOT for batch in busy)
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert entry.padding == pytest.approx(1 - sum(map(sum, batches)) / padded, abs=1e-4)


def test_a_budget_of_one_token_means_one_row_at_a_time(ask: Callable[..., Entry], batches: list[list[int]]) -> None:
    assert ask(1, 1, 1).padding == 0
    assert {len(batch) for batch in batches} == {1}


def test_only_what_is_done_after_the_first_fifth_and_before_the_end_counts(
    ask: Callable[..., Entry], batches: list[list[int]]
) -> None:
    entry = ask(1, 1, 512, seconds=0.5)
    answered = sum(map(len, batches[:-LONE_ROWS]))
    # Texts a second of the counted 0.4 s cannot be more than all that was answered.
    assert 0 < entry.inputs_per_second * 0.4 <= answered
    assert entry.inputs_per_second * 0.4 > answered / 4


def test_a_model_that_is_slower_than_the_time_it_gets_still_has_a_speed(
    ask: Callable[..., Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    def slow(self: Predictor, batch: Sequence[Tokens]) -> Any:
        time.sleep(0.02)
        return np.zeros((len(batch), 3), dtype=np.float32)

    monkeypatch.setattr(Predictor, "logits", slow)
    entry = ask(1, 1, 1, seconds=0.01)
    assert entry.inputs_per_second > 0
    assert entry.lone_ms >= 20
