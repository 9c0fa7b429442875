"""The metrics of the validation rows, by hand."""

import math

import numpy as np
import pytest

from training.recipe.data import DataSettings
from training.tasks.targets.many_labels import ManyLabelsTraining
from training.tasks.targets.one_label import OneLabelTraining
from training.tasks.targets.target import higher_is_better

DATA = DataSettings(source="s")
ONE, MANY = OneLabelTraining(DATA), ManyLabelsTraining(DATA)


def test_each_metric_is_what_it_is_by_hand() -> None:
    chances = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1]])
    found = ONE.validate(np.log(chances) + 3, np.array([0, 0, 1, 1]))
    assert tuple(found) == ONE.validation
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == (1 + 0.5) / 2
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["micro_f1"] == 0.75
    assert found["mcc"] == pytest.approx((2 * 1 - 1 * 0) / math.sqrt(3 * 2 * 2 * 1))
    assert found["log_loss"] == pytest.approx(-np.log([0.7, 0.6, 0.8, 0.4]).mean())


def test_only_a_loss_is_better_when_it_is_lower() -> None:
    assert [metric for metric in ONE.validation if not higher_is_better(metric)] == ["log_loss"]


def test_of_any_number_of_labels_a_row_is_right_with_all_of_them() -> None:
    logits, labels = np.array([[2.0, -1.0], [0.5, 1.0], [-3.0, -1.0]]), np.array([[1, 0], [1, 0], [0, 0]])
    found = MANY.validate(logits, labels)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((1 + 0) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (3 + 2))
    chances = 1 / (1 + np.exp(-logits))
    assert found["log_loss"] == pytest.approx(-np.log(np.where(labels, chances, 1 - chances)).mean())
    assert tuple(found) == MANY.validation
