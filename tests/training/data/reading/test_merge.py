"""Labels that look alike are joined under one spelling; every other label stays as it is."""

from typing import Any

from training.data.reading.merge import joined_labels
from training.recipe.data import DataSettings
from training.sources.raw import Raw, Source
from training.tasks.targets.many_labels import ManyLabelsTraining
from training.tasks.targets.one_label import OneLabelTraining


def joined(given: list[Any], known: tuple[str, ...] = (), **more: Any) -> dict[str, str]:
    data = DataSettings.model_validate({"source": "s", "labels": {"merge": True}} | more)
    kind = ManyLabelsTraining if data.multi_label else OneLabelTraining
    source = Source("s", "0", lambda: iter([Raw(str(number), "a", None, label) for number, label in enumerate(given)]))
    return joined_labels([source], data, kind(data), known)


def test_the_commonest_spelling_stays_and_labels_like_no_other_too() -> None:
    labels = ["Good"] * 3 + ["good"] * 2 + ["5.0", "5", "5", "007", "iPhone", "Stra\xdfe", None]
    assert joined(labels) == {"good": "Good", "5.0": "5"}


def test_the_previous_versions_name_stays() -> None:
    assert joined(["Good"] * 3 + ["good"], ("bad", "good")) == {"Good": "good"}


def test_new_names_come_first() -> None:
    assert joined(["great", "great", "good", "Good"], labels={"merge": True, "great": "Good"}) == {"good": "Good"}


def test_several_labels_a_row() -> None:
    assert joined([["A", "b"], ["a"], ["A"]], multi_label=True) == {"a": "A"}


def test_nothing_is_joined_unless_the_recipe_says_so() -> None:
    assert joined(["Good", "good"], labels={}) == {}
