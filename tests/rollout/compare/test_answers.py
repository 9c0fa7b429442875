"""Answers that changed between two models, by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.quality.labelled import Labelled
from rollout.compare.answers import flips_of

TARGET = OneLabel(labels=["a", "b", "c"])


def rows_of(gold: list[Any]) -> Labelled:
    numbers = [10 + n for n in range(len(gold))]
    return Labelled(Path("x"), [(str(n), None) for n in numbers], np.array(gold), numbers, [b""] * len(gold), {})


def test_flips_each_way_the_surest_first() -> None:
    gold = [0, 0, 0, 1, 1, 2]
    old = np.array([[0.6, 0.4, 0], [0.7, 0.3, 0], [0.8, 0.2, 0], [0.9, 0.1, 0], [0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])
    new = np.array([[0.1, 0.9, 0], [0.05, 0.95, 0], [0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    found = flips_of(rows_of(gold), TARGET.logits(new), TARGET.logits(old), TARGET, most=1)
    assert (found.lost, found.gained, found.both_wrong) == (2, 1, 1)
    (lost,) = found.lost_examples
    assert (lost.row, lost.label, lost.candidate, lost.served) == (11, "a", "b", "a")
    assert (lost.candidate_confidence, lost.served_confidence) == pytest.approx((0.95, 0.7))
    assert [one.row for one in found.gained_examples] == [13]
    assert flips_of(rows_of(gold), TARGET.logits(new), TARGET.logits(old), TARGET, most=0).lost_examples == []


def test_of_many_labels_an_answer_flips_as_a_whole_and_is_as_sure_as_its_least_sure_label() -> None:
    tags = ManyLabels(labels=["a", "b"])
    gold = [[1, 0], [1, 1], [0, 0]]
    old = np.array([[0.9, 0.2], [0.9, 0.6], [0.8, 0.2]])
    new = np.array([[0.9, 0.3], [0.95, 0.4], [0.1, 0.2]])
    found = flips_of(rows_of(gold), tags.logits(new), tags.logits(old), tags, most=5)
    assert (found.lost, found.gained, found.both_wrong) == (1, 1, 0)
    (lost,), (gained,) = found.lost_examples, found.gained_examples
    assert (lost.row, lost.label, lost.candidate, lost.served) == (11, "a, b", "a", "a, b")
    assert (lost.candidate_confidence, lost.served_confidence) == pytest.approx((0.6, 0.6))
    assert (gained.label, gained.candidate, gained.served) == ("(none)", "(none)", "a")
