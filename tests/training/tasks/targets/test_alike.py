"""Labels that look alike, and what programs write for nothing."""

import pytest

from training.recipe.data import DataSettings
from training.tasks.targets.alike import alike, groups_alike, missing_values
from training.tasks.targets.many_labels import ManyLabelsTraining
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


def test_they_are_merged_where_the_recipe_says_so() -> None:
    merged = DataSettings.model_validate({"source": "s", "labels": {"merge": True, "great": "Good"}})
    assert (merged.merge_labels, merged.labels) == (True, {"great": "Good"})
    target = OneLabelTraining(merged)
    assert [target.read(given)[0] for given in ("Good", "good ", "great", "5.0", 5)] == [
        "good",
        "good",
        "good",
        "5",
        "5",
    ]
    assert target.read("Good") == ("good", {"Good"})
    many = ManyLabelsTraining(merged.model_copy(update={"multi_label": True}))
    assert many.read(["Good", "good", "Bad"])[0] == '["bad", "good"]'
    plain = OneLabelTraining(DataSettings.model_validate({"source": "s", "labels": {"merge": "join"}}))
    assert plain.read("merge")[0] == "join"
    assert plain.read("Good")[0] == "Good"
