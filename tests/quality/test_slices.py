"""Slices: which there are, their numbers, and that only a slice which is worse for sure vetoes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.verdict import CompareSettings
from bentune.quality.labelled import Labelled
from bentune.quality.slices import SliceDifference, compare_slices, masks

TARGET = OneLabel(labels=["cat", "dog"])
FEW = CompareSettings(resamples=100)


def labelled(gold: list[int], lengths: list[int] | None = None, **values: list[str]) -> Labelled:
    texts: list[tuple[str, str | None]] = [("x" * (lengths[n] if lengths else 5), None) for n in range(len(gold))]
    return Labelled(Path("rows.csv"), texts, np.array(gold), list(range(len(gold))), [b""] * len(gold), values)


def answers(predicted: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.log(np.where(np.eye(2)[predicted] == 1, 0.9, 0.1)).astype(np.float32)


def named(slices: list[SliceDifference]) -> dict[str, SliceDifference]:
    return {f"{one.by} {one.value}": one for one in slices}


def test_labels_lengths_and_columns_each_cover_every_row() -> None:
    rows = labelled([0, 1] * 8, list(range(1, 17)), set=["a"] * 4 + ["b"] * 12)
    found = [(by, value, mask.sum()) for by, value, mask in masks(rows, TARGET, ["set"])]
    assert found == [
        ("label", "cat", 8),
        ("label", "dog", 8),
        ("characters", "1 to 4", 4),
        ("characters", "5 to 8", 4),
        ("characters", "9 to 12", 4),
        ("characters", "13 to 16", 4),
        ("set", "b", 12),
        ("set", "a", 4),
    ]


def test_one_length_is_one_slice() -> None:
    assert [value for by, value, _ in masks(labelled([0, 1]), TARGET, []) if by == "characters"] == ["5"]


def test_many_values_are_quartered_if_numbers_and_else_the_rare_ones_joined() -> None:
    rows = labelled(
        [0, 1] * 50, year=[str(1900 + n) for n in range(100)], name=["often"] * 50 + [*map(chr, range(97, 147))]
    )
    found = [(by, value, int(mask.sum())) for by, value, mask in masks(rows, TARGET, ["year", "name"])]
    assert [one for one in found if one[0] == "year"] == [
        ("year", "1900 to 1924", 25),
        ("year", "1925 to 1949", 25),
        ("year", "1950 to 1974", 25),
        ("year", "1975 to 1999", 25),
    ]
    by_name = [one for one in found if one[0] == "name"]
    assert len(by_name) == 21
    assert by_name[0] == ("name", "often", 50)
    assert by_name[-1] == ("name", "(others)", 31)


def test_rows_with_several_labels_are_in_the_slice_of_each_and_those_without_in_their_own() -> None:
    rows = labelled([0] * 4)
    tagged = Labelled(rows.path, rows.texts, np.array([[1, 1], [0, 1], [0, 0], [0, 0]]), rows.numbers, rows.keys, {})
    found = [(value, mask.tolist()) for by, value, mask in masks(tagged, ManyLabels(labels=["a", "b"]), [])]
    assert found == [
        ("a", [True, False, False, False]),
        ("b", [True, True, False, False]),
        ("(none)", [False, False, True, True]),
        ("5", [True] * 4),
    ]


def test_a_slice_that_is_worse_for_sure_vetoes_and_the_whole_hides_it() -> None:
    gold = [0] * 900 + [1] * 100
    was = gold.copy()
    new = gold.copy()
    new[900:920] = [0] * 20  # dogs that it does not know any more
    was[:20] = [1] * 20  # and as many cats that it learned
    slices = named(compare_slices(labelled(gold), answers(new), answers(was), TARGET, FEW))
    dog = slices["label dog"]
    assert (dog.rows, dog.gained, dog.lost, dog.vetoes, dog.non_inferior) == (100, 0, 20, True, False)
    assert dog.difference.value == pytest.approx(-0.2)
    assert dog.difference.low < -0.2 < dog.difference.high < 0
    # Three slices: two labels, one length. The smallest p-value is multiplied by their number.
    assert dog.worse_p == pytest.approx(3 * stats.binomtest(20, 20, 0.5, alternative="greater").pvalue)
    assert dog.others.keys() == {"macro_f1", "log_loss"}
    assert dog.others["log_loss"].value > 0
    assert not slices["label cat"].vetoes
    assert slices["label cat"].non_inferior
    assert not slices["characters 5"].vetoes


def test_significant_but_within_the_margin_is_no_veto() -> None:
    gold = [0, 1] * 5000
    new = gold.copy()
    new[::1000] = [1 - label for label in new[::1000]]  # ten rows of the label cat
    (cat, *_) = compare_slices(labelled(gold), answers(new), answers(gold), TARGET, FEW)
    assert cat.worse_p < 0.01
    assert cat.difference.value == pytest.approx(-0.002)
    assert not cat.vetoes


def test_equal_models_are_rarely_vetoed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects at each correction, which takes a second here
    rng = np.random.default_rng(3)
    gold = [0, 1] * 100
    truth = np.array(gold)
    vetoed = 0
    for _ in range(60):
        wrong, by_new = rng.random(200) < 0.2, rng.random(200) < 0.5
        new, was = np.where(wrong & by_new, 1 - truth, truth), np.where(wrong & ~by_new, 1 - truth, truth)
        rows = labelled(gold, rng.integers(1, 500, 200).tolist())
        vetoed += any(one.vetoes for one in compare_slices(rows, answers(new), answers(was), TARGET, FEW))
    assert vetoed <= 8  # 5 % of 60, and three sigma


@pytest.mark.parametrize(("lost", "vetoes"), [(5, True), (4, True), (3, False), (1, False)])
def test_a_frozen_slice_vetoes_by_a_loss_that_would_elsewhere_be_no_certain_one(lost: int, vetoes: bool) -> None:
    """A slice of 40 rows loses four, while 400 other rows gain twenty.

    The loss is ten points, and not significant.
    """
    gold = [0, 1] * 220
    was, new = gold.copy(), gold.copy()
    was[40:60] = [1 - label for label in was[40:60]]
    new[:lost] = [1 - label for label in new[:lost]]
    rows = labelled(gold, set=["reference"] * 40 + ["fresh"] * 400)
    one = CompareSettings(resamples=100, slices=["set"], margin=3)
    reference = named(compare_slices(rows, answers(new), answers(was), TARGET, one))["set reference"]
    assert (reference.vetoes, reference.frozen) == (False, False)
    assert reference.worse_p > 0.05
    firm = one.model_copy(update={"frozen": {"set": "reference"}})
    slices = named(compare_slices(rows, answers(new), answers(was), TARGET, firm))
    assert (slices["set reference"].vetoes, slices["set reference"].frozen) == (vetoes, True)
    assert slices["set reference"].difference.value == -lost / 40
    assert not any(found.vetoes or found.frozen for name, found in slices.items() if name != "set reference")


def test_a_frozen_value_is_a_slice_of_its_own_however_many_there_are() -> None:
    rows = labelled([0, 1] * 50, year=[str(1900 + n) for n in range(100)])
    years = CompareSettings(resamples=100, slices=["year"], frozen={"year": "1907"})
    right = answers(rows.gold)
    (found,) = [one for one in compare_slices(rows, right, right, TARGET, years) if one.frozen]
    assert (found.by, found.value, found.rows) == ("year", "1907", 1)
