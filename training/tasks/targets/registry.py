"""Registry of the targets of classifiers, with one label a row or multi-label."""

from training.tasks.targets.many_labels import ManyLabelsTraining
from training.tasks.targets.one_label import OneLabelTraining

CLASSES: dict[bool, type[OneLabelTraining]] = {False: OneLabelTraining, True: ManyLabelsTraining}
