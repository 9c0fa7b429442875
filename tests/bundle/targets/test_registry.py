"""A target is read from the entries that it was written as, and from nothing else."""

from typing import Any

import pytest
from pydantic import ValidationError

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.targets.registry import ENTRIES, TARGETS, target_in
from bentune.bundle.targets.target import Target


@pytest.mark.parametrize("kind", [OneLabel.kind, ManyLabels.kind])
def test_each_is_read_from_what_it_writes(kind: str) -> None:
    target = TARGETS[kind].model_validate({"labels": ["cat", "dog"]})
    written = target.wire()
    assert written.keys() <= {*ENTRIES}
    assert target_in(written | {"name": "pets"}) == target
    assert type(target_in(written)) is TARGETS[kind]
    assert target_in({"labels": ["cat", "dog"], "target": {"kind": kind}}) == target


def test_classifiers_are_spelled_as_before_there_were_other_targets() -> None:
    labels = ["cat", "dog"]
    assert OneLabel(labels=labels).wire() == {"labels": labels}
    assert ManyLabels(labels=labels).wire() == {"labels": labels, "multi_label": True}
    assert target_in({"labels": labels, "multi_label": False}) == OneLabel(labels=labels)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"labels": ["cat", "dog"], "target": {"kind": "span"}}, "the target is none of one_label, many_labels"),
        ({"labels": ["cat", "dog"], "target": "one_label"}, "the target is none of"),
        ({"labels": ["cat", "dog"], "target": {"kind": "one_label", "more": 1}}, "more"),
        ({"labels": ["only"]}, "labels"),
        ({}, "labels"),
        ({"labels": ["cat", 5]}, "labels"),
    ],
)
def test_what_is_no_target_is_refused(entries: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, ValidationError), match=said):
        target_in(entries)


def test_targets_of_other_kinds_are_not_equal() -> None:
    one: Target = OneLabel(labels=["cat", "dog"])
    assert one != ManyLabels(labels=["cat", "dog"])
