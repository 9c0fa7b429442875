"""Areas under the ROC curve: by hand, and intervals against DeLong's variance and against known truth."""

import numpy as np
import pytest

from bentune.quality.statistics.ranking import areas, of_classes


def test_an_area_by_hand() -> None:
    # One of four pairs is ranked wrong and one is tied.
    scores, has = np.array([[0.9], [0.4], [0.4], [0.6]]), np.array([[True], [True], [False], [False]])
    whole, (of_label,) = areas(scores, has, 0.95)
    assert whole == of_label is not None
    assert whole is not None
    assert whole.value == 2.5 / 4


def test_the_variance_of_one_label_is_that_of_delong() -> None:
    rng = np.random.default_rng(0)
    has = rng.random(80) < 0.4
    scores = rng.normal(size=80) + has
    (found,) = areas(scores[:, None], has[:, None], 0.95)[1]
    wins = np.sign(scores[has][:, None] - scores[~has][None, :]) / 2 + 0.5
    rows, columns = wins.mean(axis=1), wins.mean(axis=0)
    variance = rows.var() / has.sum() + columns.var() / (~has).sum()
    assert found is not None
    assert found.value == pytest.approx(wins.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-6)


def test_the_interval_of_the_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        gold = rng.integers(0, 3, size=rows)
        logits = np.eye(3)[gold] + rng.normal(size=(rows, 3))
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), gold

    truth = of_classes(*draw(100_000), 0.95)[0]
    assert truth is not None
    found = [of_classes(*draw(200), 0.9)[0] for _ in range(300)]
    covered = [one is not None and one.low <= truth.value <= one.high for one in found]
    assert 0.85 <= np.mean(covered) <= 0.95


def test_labels_that_all_rows_have_or_none_has_are_left_out_of_the_mean() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    whole, each = of_classes(scores, [0, 1, 1], 0.95)
    assert [one is None for one in each] == [False, False, True]
    assert whole is not None
    assert whole.value == 1
    assert of_classes(scores, [1, 1, 1], 0.95) == (None, [None, None, None])


def test_two_labels_have_one_area() -> None:
    rng = np.random.default_rng(1)
    scores = rng.dirichlet([1, 1], size=50)
    whole, each = of_classes(scores, rng.integers(0, 2, size=50), 0.95)
    assert each == [whole, whole]
