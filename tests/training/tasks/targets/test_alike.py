"""Labels that look alike, and what programs write for nothing."""

import pytest

from training.recipe.data import DataSettings
from training.tasks.targets.alike import alike, groups_alike, missing_values
from training.tasks.targets.one_label import OneLabelTraining


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good", "good"),
        ("5", "5.0"),
        ("05", "5"),
        ("caf\u00e9", "cafe\u0301"),
        ("good", "good\u200b"),
        ("very  good", "very\u00a0good"),
        ("\uff21", "a"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_labels_that_look_alike(one: str, other: str) -> None:
    assert alike(one) == alike(other)
    assert groups_alike([one, "else", other]) == [[one, other]]


@pytest.mark.parametrize(("one", "other"), [("5", "50"), ("5", "5.1"), ("good", "goods"), ("1.0.0", "1"), ("a", "b")])
def test_labels_that_do_not(one: str, other: str) -> None:
    assert alike(one) != alike(other)
    assert groups_alike([one, other]) == []


def test_what_programs_write_for_nothing() -> None:
    assert missing_values(["NaN", "good", "N/A", "none", "Nones"]) == ["NaN", "N/A", "none"]


def test_merge_is_a_key_of_labels_and_no_label() -> None:
    merged = DataSettings.model_validate({"source": "s", "labels": {"merge": True, "great": "Good"}})
    assert (merged.merge_labels, merged.labels) == (True, {"great": "Good"})
    plain = OneLabelTraining(DataSettings.model_validate({"source": "s", "labels": {"merge": "join"}}))
    assert plain.read("merge")[0] == "join"
