"""A variant's answers are compared with fp32's row by row, and with its own in batches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bentune.bundle.plan import Check
from bentune.bundle.processor import ProcessorSettings
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.quality.noninferiority import paired_loss
from service.tasks.tokenizer import Tokens, pad
from training.plan.checks import Sample, batch_dependence, check, logits_alone
from training.recipe.recipe import PlanSettings

ROWS = 200
BOUNDS = PlanSettings(accuracy_budget=0.5, batch_rows=32, batch_tolerance=0.02)


# The loss, and how sure it is.


@pytest.mark.parametrize(
    ("lost", "won", "rows", "expected"),
    [
        # 5.5 rows against 2.5, of 102: (3 +- 1.96 sqrt(8 - 9/102)) / 102.
        (5, 2, 100, (3.0, -2.463785, 8.346137)),
        # Half a row each, of 102: (0 +- 1.96 sqrt(1)) / 102. Wald's would have no width at all.
        (0, 0, 100, (0.0, -1.921569, 1.921569)),
        # 10.5 against 0.5, of 514: (10 +- 1.96 sqrt(11 - 100/514)) / 514.
        (10, 0, 512, (1.953125, 0.692054, 3.198996)),
    ],
)
def test_the_interval_is_agresti_and_mins(lost: int, won: int, rows: int, expected: tuple[float, float, float]) -> None:
    assert paired_loss(lost, won, rows) == pytest.approx(expected, abs=1e-6)


@st.composite
def counts(draw: Any) -> tuple[int, int, int]:
    """Rows that only one got right, that only the other got right, and all rows."""
    rows = draw(st.integers(1, 2000))
    lost = draw(st.integers(0, rows))
    return lost, draw(st.integers(0, rows - lost)), rows


@given(counts())
def test_swapping_the_two_turns_the_interval_around(found: tuple[int, int, int]) -> None:
    lost, won, rows = found
    loss, low, high = paired_loss(lost, won, rows)
    assert paired_loss(won, lost, rows) == pytest.approx((-loss, -high, -low))


@given(counts())
def test_the_interval_holds_its_centre_and_stays_within_what_can_be(found: tuple[int, int, int]) -> None:
    lost, won, rows = found
    loss, low, high = paired_loss(lost, won, rows)
    assert loss == pytest.approx(100 * (lost - won) / rows)
    assert -100 <= low <= 100 * (lost - won) / (rows + 2) <= high <= 100
    # The centre is drawn towards 0, by less than the interval is wide unless nearly every row differs.
    assume(lost + won <= rows / 2)
    assert low <= loss <= high


@given(counts(), st.integers(2, 20))
def test_more_rows_never_make_it_wider(found: tuple[int, int, int], times: int) -> None:
    lost, won, rows = found
    assume(rows >= 4)
    _, low, high = paired_loss(lost, won, rows)
    _, low_more, high_more = paired_loss(lost * times, won * times, rows * times)
    assert high_more - low_more <= high - low + 1e-9


@given(counts())
def test_each_row_that_is_lost_moves_it_up(found: tuple[int, int, int]) -> None:
    lost, won, rows = found
    assume(lost + won < rows)
    before, after = paired_loss(lost, won, rows), paired_loss(lost + 1, won, rows)
    assert after[0] > before[0]
    assert after[1] + after[2] > before[1] + before[2] or 100 in after


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
    """fp32 was wrong in rows 0 to 4, the variant in row 0 only: both wrong is no difference."""
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
    """A probability that moves by 0.05 flips nothing, yet another pod's golden rows would not agree."""
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
    """Rows on the fence flip with a tiny change; their share counts against the budget of accuracy."""
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
