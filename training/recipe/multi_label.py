"""What a recipe may not ask for where rows have any number of labels, said before anything is read."""

from training.recipe.compression import DistillSettings
from training.recipe.evaluate import EvaluateSettings
from training.recipe.search import SearchSettings
from training.recipe.section import Section
from training.recipe.train import SINGLE_LABEL_METRICS, TrainSettings


def problem_of(section: Section | None) -> str:
    """Why this section of the recipe does not go with data.multi_label, in words; empty where it does."""
    match section:
        case TrainSettings() if section.balance not in ("none", "weights"):
            return (
                "balance: with data.multi_label a row that is repeated or left out counts for all of its labels: "
                "give none or weights"
            )
        case TrainSettings() if section.early_stopping and section.early_stopping.metric in SINGLE_LABEL_METRICS:
            return f"early_stopping.metric: {_one_label(section.early_stopping.metric)}"
        case SearchSettings() if section.metric in SINGLE_LABEL_METRICS:
            return f"metric: {_one_label(section.metric)}"
        case DistillSettings():
            return "with data.multi_label there is no distillation: its loss is one of labels that exclude each other"
        case EvaluateSettings() if section.ordinal:
            return "ordinal: with data.multi_label a row has no rank: leave it out"
    return ""


def _one_label(metric: str) -> str:
    return f"{metric} is for one label a row; with data.multi_label give accuracy, macro_f1, micro_f1 or log_loss"
