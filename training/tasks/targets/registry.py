"""Registry of the targets of classifiers, by whether rows have any number of labels."""

from training.tasks.targets.many_labels import ManyLabelsTraining
from training.tasks.targets.one_label import OneLabelTraining

CLASSES: dict[bool, type[OneLabelTraining]] = {False: OneLabelTraining, True: ManyLabelsTraining}
