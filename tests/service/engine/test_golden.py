"""The replay of golden rows: what counts as the expected score, and what does not."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bentune.bundle.hardware import describe
from bentune.bundle.manifest import GoldenRow, open_bundle
from bentune.bundle.plan import scores_key
from bentune.bundle.targets.one_label import OneLabel, softmax
from service.engine.golden import Replay, replay
from service.engine.predictor import Predictor
from service.tasks.text_classification import TextClassification


class Fixed(Predictor):
    """Gives the same logits whatever it reads, and remembers what that was."""

    def __init__(self, logits: Sequence[float]) -> None:
        labels = [f"l{number}" for number in range(len(logits))]
        self.task = TextClassification(self, OneLabel(labels=labels))  # type: ignore[arg-type]
        self.fixed = np.array([logits], dtype=np.float32)
        self.read: list[tuple[str, str | None, bool]] = []

    def encode(self, text: str, text_pair: str | None = None, *, truncate: bool) -> str:
        self.read.append((text, text_pair, truncate))
        return text

    def logits(self, batch: Sequence[object]) -> np.ndarray:
        assert len(batch) == 1, "each row alone"
        return self.fixed


KEY = "fp32/CPUExecutionProvider"


def row(*scores: float, tolerance: float = 0.01, pair: str | None = None, key: str = KEY) -> GoldenRow:
    # Unchecked, for rows whose scores are no numbers.
    return GoldenRow.model_construct(
        text="text", text_pair=pair, label="a", scores={key: list(scores)}, tolerance=tolerance
    )


def test_the_bundles_own_rows_pass(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    key = scores_key(bundle.plan.variant, bundle.plan.provider)
    outcome = replay(Predictor.from_bundle(bundle, describe()), bundle.golden, key)
    assert (outcome.rows, outcome.failed, outcome.passed) == (12, [], True)
    assert outcome.largest_difference < 1e-5


def test_rows_out_of_tolerance_are_numbered_and_the_largest_difference_told() -> None:
    golden = [row(0.5, 0.5), row(0.505, 0.495), row(0.52, 0.48), row(0.4, 0.6), row(0.4, 0.6, tolerance=0.2)]
    outcome = replay(Fixed([0.0, 0.0]), golden, KEY)
    assert outcome.failed == [2, 3]
    assert outcome.largest_difference == pytest.approx(0.1)
    assert not outcome.passed


def test_every_label_counts_not_only_the_best() -> None:
    scores = softmax(np.array([5.0, 1.0, 0.0], dtype=np.float32)).tolist()
    assert replay(Fixed([5.0, 1.0, 0.0]), [row(*scores, tolerance=1e-5)], KEY).passed
    swapped = [scores[0], scores[2], scores[1]]
    assert replay(Fixed([5.0, 1.0, 0.0]), [row(*swapped, tolerance=0.005)], KEY).failed == [0]


def test_a_row_may_differ_by_exactly_its_tolerance() -> None:
    assert replay(Fixed([0.0, 0.0]), [row(0.75, 0.25, tolerance=0.25)], KEY).passed


@pytest.mark.parametrize("scores", [(1.0,), (0.5, 0.25, 0.25), ()])
def test_a_row_with_another_number_of_labels_fails(scores: tuple[float, ...]) -> None:
    outcome = replay(Fixed([0.0, 0.0]), [row(*scores)], KEY)
    assert (outcome.failed, outcome.largest_difference) == ([0], math.inf)


@pytest.mark.parametrize(("logits", "expected"), [((math.nan, 0.0), 0.5), ((0.0, 0.0), math.nan)])
def test_what_is_no_number_fails_and_stays_in_sight(logits: tuple[float, float], expected: float) -> None:
    outcome = replay(Fixed(logits), [row(expected, expected), row(expected, expected)], KEY)
    assert (outcome.failed, outcome.largest_difference) == ([0, 1], math.inf)


def test_each_variant_and_provider_has_scores_of_its_own() -> None:
    golden = [row(0.5, 0.5).model_copy(update={"scores": {KEY: [0.5, 0.5], "int8-static/X": [0.9, 0.1]}})]
    assert replay(Fixed([0.0, 0.0]), golden, KEY).passed
    other = replay(Fixed([0.0, 0.0]), golden, "int8-static/X")
    assert (other.failed, other.largest_difference) == ([0], pytest.approx(0.4))


def test_rows_without_scores_of_what_runs_fail() -> None:
    outcome = replay(Fixed([0.0, 0.0]), [row(0.5, 0.5, key="int8-static/X"), row(0.5, 0.5)], KEY)
    assert (outcome.failed, outcome.largest_difference) == ([0], math.inf)


def test_no_rows_prove_nothing() -> None:
    assert replay(Fixed([0.0, 0.0]), [], KEY) == Replay(rows=0, largest_difference=0.0, failed=[])
    assert not replay(Fixed([0.0, 0.0]), [], KEY).passed


def test_pairs_are_replayed_as_pairs_and_long_rows_are_cut() -> None:
    predictor = Fixed([0.0, 0.0])
    replay(predictor, [row(0.5, 0.5), row(0.5, 0.5, pair="other")], KEY)
    assert predictor.read == [("text", None, True), ("text", "other", True)]
