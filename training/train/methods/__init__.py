"""What of the model is tuned, a file for each method; the stages use what is named here."""

from training.train.methods.registry import BASE, load_same_base, load_tuned, merge_tuned, prepare, save_tuned
from training.train.methods.tuning import ParameterCount, count

__all__ = [
    "BASE",
    "ParameterCount",
    "count",
    "load_same_base",
    "load_tuned",
    "merge_tuned",
    "prepare",
    "save_tuned",
]
