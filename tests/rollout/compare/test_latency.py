"""Runs in turns: every row once through each side, in a random order of sides, and ratios that know their noise."""

import numpy as np
import pytest
from scipy import stats

from bentune.bundle.arrays import Floats
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.verdict import Judged
from rollout.compare.latency import ratio, run_both
from rollout.load.bodies import Text


class Counting:
    """A side whose answers and turns are known."""

    bundle = None
    live = pairs = False
    variant = provider = "fake"

    def __init__(self, name: str, labels: list[str], turns: list[str], most_texts: int = 1000) -> None:
        self.judged = Judged(tag=name, content=name)
        self.target, self.turns, self.most_texts = OneLabel(labels=labels), turns, most_texts
        self.lists: list[list[str]] = []

    def score(self, texts: list[Text]) -> Floats:
        self.turns.append(self.judged.tag)
        self.lists.append([text for text, _ in texts])
        first = np.array([float(text) for text, _ in texts])
        column = self.target.index["yes"]
        scores = np.empty((len(texts), 2))
        scores[:, column], scores[:, 1 - column] = first, 1 - first
        return scores


def test_same_rows_in_blocks_in_turns_and_columns_in_one_order() -> None:
    turns: list[str] = []
    new, old = Counting("new", ["yes", "no"], turns), Counting("old", ["no", "yes"], turns, most_texts=4)
    texts: list[Text] = [(str(n / 100), None) for n in range(90)]
    told: list[int] = []
    runs = run_both(new, old, texts, latency_rows=30, confidence=0.9, seed=1, advance=told.append)
    np.testing.assert_array_equal(runs.candidate, runs.served)
    assert runs.candidate[:, 0].tolist() == [n / 100 for n in range(90)]
    assert sum(told) == 120
    warmed = 2
    assert new.lists == old.lists
    sizes = [len(one) for one in new.lists[warmed:]]
    assert sizes == [4] * 22 + [2] + [1] * 30
    assert [text for one in new.lists[warmed : warmed + 23] for text in one] == [text for text, _ in texts]
    assert len({text for one in new.lists[-30:] for text in one}) == 30
    pairs = [tuple(turns[place : place + 2]) for place in range(2 * warmed, len(turns), 2)]
    assert set(pairs) == {("new", "old"), ("old", "new")}
    assert 10 < pairs.count(("new", "old")) < 43
    assert (runs.latency.pairs, runs.throughput.pairs) == (30, 22)


def test_a_ratio_is_hodges_and_lehmanns() -> None:
    rng = np.random.default_rng(5)
    served = rng.lognormal(3, 0.5, 80)
    candidate = served * 1.3 * rng.lognormal(0, 0.1, 80)
    candidate[7] *= 50  # a hiccup
    found = ratio(candidate, served, 0.9)
    logs = np.log(candidate / served)
    walsh = [(a + b) / 2 for i, a in enumerate(logs) for b in logs[i:]]
    assert found.value == pytest.approx(np.exp(np.median(walsh)))
    assert found.low < 1.3 < found.high < 1.4
    # The limits are where the signed-rank test turns significant.
    for limit, side in ((found.low, "greater"), (found.high, "less")):
        p = stats.wilcoxon(logs - np.log(limit), alternative=side, method="approx").pvalue
        assert p == pytest.approx(0.05, abs=0.005)


def test_few_pairs_span_the_interval() -> None:
    found = ratio(np.array([2.0, 4.0, 8.0]), np.array([1.0, 1.0, 1.0]), 0.9)
    assert (found.low, found.value, found.high) == (pytest.approx(2), pytest.approx(4), pytest.approx(8))
    assert ratio(np.array([3.0]), np.array([1.0]), 0.9).value == pytest.approx(3)


def test_equal_sides_are_rarely_called_slower() -> None:
    rng = np.random.default_rng(1)
    called = sum(ratio(rng.lognormal(0, 0.3, 40), rng.lognormal(0, 0.3, 40), 0.9).low > 1 for _ in range(300))
    assert called <= 15 + 3 * (300 * 0.05 * 0.95) ** 0.5
