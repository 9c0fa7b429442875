"""A variant's answers are compared with fp32's row by row, and with its own in batches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bentune.bundle.plan import Check
from bentune.bundle.processor import ProcessorSettings
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.quality.statistics.noninferiority import paired_loss
from service.tasks.tokenizer import Tokens, pad
from training.plan.checks import Sample, batch_dependence, check, logits_alone
from training.recipe.recipe import PlanSettings

ROWS = 200
BOUNDS = PlanSettings(accuracy_budget=0.5, batch_rows=32, batch_tolerance=0.02)


# Fake sessions: the label of a row is its first token.


class Padding:
    """The tokenizer, as far as batches need it."""

    settings = ProcessorSettings(pad_id=0)

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool, field: str = "") -> Tokens:
        raise NotImplementedError

    def collate(self, batch: Sequence[Tokens]) -> dict[str, np.ndarray]:
        return dict(pad(batch, self.settings))


def sample(lengths: Sequence[int] | None = None, fp32: np.ndarray | None = None) -> Sample:
    lengths = lengths or [2 + row % 7 for row in range(ROWS)]
    tokens = [Tokens([row % 2] + [1] * (length - 1), [0] * length, False) for row, length in enumerate(lengths)]
    labels = np.array([row % 2 for row in range(len(lengths))], dtype=np.int64)
    return Sample(tokens, labels, Padding(), OneLabel(labels=["a", "b"]), fp32)


class Fake:
    """A session that finds the label in the first token, or what `change` makes of that logits array."""

    def __init__(self, change: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda logits, ids: logits) -> None:
        self.change = change
        self.asked: list[tuple[int, ...]] = []

    def run(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        ids = feed["input_ids"]
        self.asked.append(ids.shape)
        logits = np.zeros((len(ids), 2), dtype=np.float32)
        logits[np.arange(len(ids)), ids[:, 0]] = 2.0
        return self.change(logits, ids).astype(np.float32)


def checked(session: Any, rows: Sample, bounds: PlanSettings = BOUNDS, alone: np.ndarray | None = None) -> Check:
    if alone is None:
        alone = logits_alone(session, rows, 2, lambda _: None)
    return check("int8-static", "a provider", session, rows, alone, bounds, megabytes=12.34, seed=3)


def with_wrong(rows: Sample, wrong: int) -> np.ndarray:
    """Logits of every row alone, of which the first `wrong` are for the other label."""
    logits = logits_alone(Fake(), rows, 1, lambda _: None)
    logits[:wrong] = logits[:wrong, ::-1]
    return logits


def test_rows_go_through_one_by_one_and_in_order() -> None:
    session, steps = Fake(lambda logits, ids: logits + ids.shape[1]), []
    logits = logits_alone(session, sample(), 2, steps.append)
    assert logits.shape == (ROWS, 2)
    assert sorted(session.asked) == sorted((1, 2 + row % 7) for row in range(ROWS))
    assert [row[row_number % 2] for row_number, row in enumerate(logits)] == [4 + row % 7 for row in range(ROWS)]
    assert sum(steps) == ROWS


def test_fp32_is_compared_with_itself() -> None:
    found = checked(Fake(), sample())
    assert (found.variant, found.provider, found.rows, found.megabytes) == ("int8-static", "a provider", ROWS, 12.3)
    assert (found.accuracy, found.accuracy_loss, found.label_flips, found.batch_flips) == (1.0, 0.0, 0, 0)
    assert (found.batch_difference, found.alone, found.problem) == (0.0, False, "")


def test_a_loss_within_the_budget_is_accepted() -> None:
    """One row of 200 is half a point."""
    rows = sample(fp32=with_wrong(sample(), 0))
    found = checked(Fake(), rows, alone=with_wrong(rows, 1))
    assert (found.accuracy, found.accuracy_loss, found.label_flips) == (0.995, 0.5, 1)
    assert (found.loss_low, found.loss_high) == pytest.approx(paired_loss(1, 0, ROWS)[1:])
    assert found.problem == ""


def test_a_loss_above_the_budget_is_refused_with_both_numbers() -> None:
    rows = sample(fp32=with_wrong(sample(), 0))
    found = checked(Fake(), rows, alone=with_wrong(rows, 2))
    assert found.problem == "it loses 1.00 points of accuracy, 0.50 are allowed"
    assert found.accuracy_loss == 1.0


def test_a_variant_may_be_better_and_only_pairs_of_rows_count() -> None:
    """fp32 is wrong in rows 0 to 4, and the variant in row 0 only.

    A row in which both are wrong is no difference.
    """
    rows = sample(fp32=with_wrong(sample(), 5))
    found = checked(Fake(), rows, alone=with_wrong(rows, 1))
    assert (found.accuracy_loss, found.label_flips, found.problem) == (-2.0, 4, "")
    assert (found.loss_low, found.loss_high) == pytest.approx(paired_loss(0, 4, ROWS)[1:])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    rows = sample()
    alone = with_wrong(rows, 0)
    alone[17, 1] = value
    found = checked(Fake(), rows, alone=alone)
    assert found.problem == "its logits are not finite"
    assert found.accuracy is None


def test_logits_that_are_no_numbers_in_batches_are_refused() -> None:
    found = checked(Fake(lambda logits, ids: logits + (math.nan if len(ids) > 2 else 0)), sample())
    assert found.problem == "its logits are not finite in batches"
    assert found.accuracy is None


def test_answers_that_move_with_the_batch_mean_one_row_at_a_time() -> None:
    """A probability that moves by 0.05 flips nothing.

    Yet the golden rows of another pod would not agree.
    """
    nudge = 0.5
    found = checked(Fake(lambda logits, ids: logits - nudge * (len(ids) > 1) * logits / 2), sample())
    expected = 1 / (1 + math.exp(-2.0)) - 1 / (1 + math.exp(-1.5))
    assert found.batch_difference == pytest.approx(expected, abs=1e-5)
    assert (found.batch_flips, found.alone, found.problem) == (0, True, "")


def test_answers_that_hardly_move_with_the_batch_may_run_in_batches() -> None:
    found = checked(Fake(lambda logits, ids: logits * (1 + 0.01 * (len(ids) > 1))), sample())
    assert 0 < found.batch_difference < BOUNDS.batch_tolerance
    assert found.alone is False


def test_labels_that_flip_in_batches_mean_one_row_at_a_time_however_small_the_change() -> None:
    """Rows on the fence flip with a tiny change.

    Their share counts against the budget of accuracy.
    """
    rows = sample()
    fence = Fake(lambda logits, ids: 0.0005 * logits * (1 if len(ids) == 1 else -1))
    found = checked(fence, rows)
    assert found.batch_difference is not None
    assert found.batch_difference < 0.001
    assert (found.batch_flips, found.alone) == (32, True)
    lenient = BOUNDS.model_copy(update={"accuracy_budget": 100.0})
    assert checked(fence, rows, lenient).alone is False


def test_only_so_many_rows_go_through_batches_each_size_with_and_without_the_longest() -> None:
    lengths = [3] * ROWS
    lengths[11] = 50
    session = Fake()
    rows = sample(lengths)
    alone = logits_alone(session, rows, 1, lambda _: None)
    session.asked.clear()
    difference, flips, looked_at = batch_dependence(session, rows, alone, ROWS, 0)  # type: ignore[arg-type]
    assert (difference, flips, looked_at) == (0.0, 0, ROWS)
    assert {shape[0] for shape in session.asked} == {2, 3, 8, 9}
    # With it, the longest row pads every batch to its own length.
    assert all(shape[1] == 50 for shape in session.asked if shape[0] in (3, 9))
    session.asked.clear()
    assert batch_dependence(session, rows, alone, 8, 0)[2] == 8  # type: ignore[arg-type]
    assert sum(shape[0] for shape in session.asked if shape[0] in (2, 8)) == 2 * 8


def test_a_model_that_is_hurt_by_padding_is_caught() -> None:
    """Padding that leaks into the answer shows only beside a longer row."""
    found = checked(Fake(lambda logits, ids: logits / (1 + (ids == 0).sum(axis=1, keepdims=True) / 10)), sample())
    assert found.alone is True


def test_of_any_number_of_labels_a_row_is_right_with_all_of_them() -> None:
    plain = sample()
    signs = np.where(np.arange(2) == plain.labels[:, None], 1, -1)
    marks = np.column_stack([plain.labels == 0, plain.labels == 1]).astype(np.int64)
    rows = Sample(plain.tokens, marks, plain.encoder, ManyLabels(labels=plain.target.labels))
    session = Fake(lambda logits, ids: 2 * logits - 2)  # 2 for the row's own label, -2 for the other
    alone = logits_alone(session, rows, 1, lambda _: None)
    assert (np.sign(alone) == signs).all()
    found = checked(session, rows, alone=alone)
    assert (found.accuracy, found.label_flips, found.batch_flips, found.batch_difference) == (1.0, 0, 0, 0.0)
    both = alone.copy()
    both[0] = [3.0, 2.0]  # one label too many, though the best is the right one
    found = checked(session, replace(rows, fp32=alone), alone=both, bounds=BOUNDS)
    assert found.label_flips == 1
    assert found.accuracy == pytest.approx(1 - 1 / ROWS)
