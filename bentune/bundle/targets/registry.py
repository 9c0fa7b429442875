"""Registry of targets, and the reader of a target's entries in a file."""

from collections.abc import Mapping
from typing import Any

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.number import Number
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.targets.target import Target

TARGETS: dict[str, type[Target]] = {target.kind: target for target in (OneLabel, ManyLabels, Number)}
ENTRIES = ("labels", "multi_label", "target")
"""Names of the entries that `Target.wire` writes."""


def target_in(entries: Mapping[str, Any]) -> Target:
    """Return the target in these entries; other entries are ignored.

    Raises ValueError for a kind that this version does not have, and pydantic's ValidationError for wrong values.
    """
    labels, spec = entries.get("labels"), entries.get("target")
    if spec is None:
        return (ManyLabels if entries.get("multi_label") else OneLabel).model_validate({"labels": labels})
    if not isinstance(spec, Mapping) or spec.get("kind") not in TARGETS:
        raise ValueError(f"the target is none of {', '.join(TARGETS)}")
    values = {name: value for name, value in spec.items() if name != "kind"}
    return TARGETS[spec["kind"]].model_validate({**values, "labels": labels})
