"""The labels of a row, however they are written down."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.targets.label_lists import labels_in, labels_of, spelled

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize(
    ("given", "separator", "labels"),
    [
        (["login", "billing", "login"], None, ["billing", "login"]),
        ([5, 5.0, "5", 1.5], None, ["1.5", "5"]),
        ('["login", "billing"]', None, ["billing", "login"]),
        ("login; billing;", ";", ["billing", "login"]),
        ("[1]", ";", ["[1]"]),
        ([], None, []),
        ("", None, []),
        (" ", ";", []),
        ("[]", None, []),
    ],
)
def test_labels_of_a_row(given: Any, separator: str | None, labels: list[str]) -> None:
    assert labels_of(given, separator) == labels


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "not a list of labels"),
        (float("nan"), "not a list of labels"),
        ({"login": 1}, "not a list of labels"),
        ("login", "set data.label_separator"),
        ("[login", "no JSON list"),
        ("[" * 100_000, "no JSON list"),
        ([True], "neither a text nor a number"),
        ([None], "neither a text nor a number"),
        ([["login"]], "neither a text nor a number"),
        (["  "], "without a name"),
        ([float("inf")], "no number"),
        (["(none)"], "under which rows without a label are counted: rename it"),
        (["\ud83d"], "surrogate"),
    ],
)
def test_what_is_no_list_of_labels_is_refused_without_repeating_it(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        labels_of(given)
    assert "login" not in str(caught.value)


@given(st.lists(names))
def test_spelled_is_the_same_for_the_same_labels_and_is_read_again(labels: list[str]) -> None:
    assert spelled(labels) == spelled([*reversed(labels), *labels])
    assert labels_in(spelled(labels)) == sorted(set(labels))
