"""Registry of qualities: one for each kind of target."""

from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.number import Number
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.targets.target import Target
from bentune.quality.many_labels import ManyLabelsQuality
from bentune.quality.number import NumberQuality
from bentune.quality.one_label import OneLabelQuality
from bentune.quality.quality import Quality

QUALITIES: dict[str, Quality] = {
    OneLabel.kind: OneLabelQuality(),
    ManyLabels.kind: ManyLabelsQuality(),
    Number.kind: NumberQuality(),
}


def quality_of(target: Target) -> Quality:
    """Return the quality of a target's outputs."""
    return QUALITIES[target.kind]
