"""Iterative stratification: each label has its share, whatever goes with it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from properties import examples

from training.tasks.targets.stratify import stratified


@examples(100)
@given(
    marks=hnp.arrays(np.bool_, st.tuples(st.integers(1, 60), st.integers(1, 6))),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**32),
)
def test_a_share_is_drawn_the_same_each_time(marks: np.ndarray, share: float, seed: int) -> None:
    rows, labels = np.nonzero(marks)
    chosen = stratified(rows, labels, len(marks), share, seed)
    assert (chosen == stratified(rows, labels, len(marks), share, seed)).all()
    # In which order the labels of a row come says nothing.
    turned = np.random.default_rng(0).permutation(len(rows))
    assert (chosen == stratified(rows[turned], labels[turned], len(marks), share, seed)).all()


def test_every_label_has_its_share_where_chance_would_miss_it() -> None:
    generator = np.random.default_rng(1)
    marks = generator.random((4000, 12)) < 0.5 ** np.arange(1, 13)
    rows, labels = np.nonzero(marks)
    chosen = stratified(rows, labels, len(marks), 0.2, seed=3)
    counts, drawn = marks.sum(axis=0), marks[chosen].sum(axis=0)
    assert counts.min() < 10
    assert np.abs(drawn - 0.2 * counts).max() <= 2
    assert abs(chosen.sum() - 800) <= 24
    without = ~marks.any(axis=1)
    assert abs(chosen[without].sum() - 0.2 * without.sum()) <= 1
    by_chance = [marks[generator.random(4000) < 0.2].sum(axis=0) for _ in range(20)]
    assert np.mean([np.abs(one - 0.2 * counts).max() for one in by_chance]) > 10


def test_rows_without_any_label_are_drawn_too() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    assert stratified(nothing, nothing, 10, 0.3, seed=0).sum() == 3
