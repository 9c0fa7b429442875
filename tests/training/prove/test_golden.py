"""Golden rows: every predicted label among them, with the probabilities that fp32 gives."""

import numpy as np
import pytest

from bentune.bundle.targets.one_label import OneLabel, softmax
from training.prove import golden as held_out
from training.prove.golden import golden_rows
from training.prove.parity import Stop
from training.tasks.rows import Rows

LABELS = ["a", "b", "c"]
TARGET = OneLabel(labels=LABELS)
PREDICTED = [0, 0, 0, 1, 0, 2, 0, 1]


def stop(lengths: list[int] | None = None) -> Stop:
    logits = np.full((8, 3), -1, dtype=np.float32)
    logits[np.arange(8), PREDICTED] = np.linspace(0, 4, 8)
    return Stop("served", logits, [[1] * length for length in lengths or range(1, 9)], LABELS, "digest")


def rows(pairs: bool = False) -> Rows:
    texts = [f"text {row}" for row in range(8)]
    return Rows(texts, texts[::-1] if pairs else None, np.zeros(8, dtype=np.int64))


def test_every_predicted_label_is_there_before_one_comes_again() -> None:
    golden = golden_rows(rows(), stop(), 5, 0.02, TARGET)
    assert [row.label for row in golden] == ["a", "b", "c", "a", "b"]
    assert [row.text for row in golden] == ["text 0", "text 3", "text 5", "text 1", "text 7"]
    assert {row.tolerance for row in golden} == {0.02}
    assert {row.text_pair for row in golden} == {None}


def test_scores_are_the_probabilities_of_the_row() -> None:
    expected = softmax(stop().logits)
    for row in golden_rows(rows(), stop(), 8, 0.02, TARGET):
        number = int(row.text.removeprefix("text "))
        assert row.scores.keys() == {"fp32/CPUExecutionProvider"}
        (scores,) = row.scores.values()
        assert scores == pytest.approx(expected[number].tolist(), abs=1e-6)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert scores == [round(score, 7) for score in scores]


def test_no_more_rows_than_there_are() -> None:
    golden = golden_rows(rows(pairs=True), stop(), 100, 0.02, TARGET)
    assert len(golden) == 8
    assert {(row.text, row.text_pair) for row in golden} == {(f"text {n}", f"text {7 - n}") for n in range(8)}


def test_rows_that_are_too_large_for_every_pod_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "GOLDEN_CHARACTERS", 8)
    texts = [f"text {row}" + ("!" * 9 if row in (0, 5) else "!") for row in range(8)]
    given = Rows(texts, None, np.zeros(8, dtype=np.int64))
    golden = golden_rows(given, stop(), 3, 0.02, TARGET)
    assert [(row.text, row.label) for row in golden] == [("text 1!", "a"), ("text 3!", "b"), ("text 2!", "a")]
    expected = softmax(stop().logits)
    assert golden[1].scores["fp32/CPUExecutionProvider"] == pytest.approx(expected[3].tolist(), abs=1e-6)
    monkeypatch.setattr(held_out, "GOLDEN_CHARACTERS", 1)
    assert {row.text for row in golden_rows(given, stop(), 3, 0.02, TARGET)} == {"text 1!", "text 2!", "text 3!"}
