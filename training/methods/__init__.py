"""What of the model is tuned, a file for each method; the stages use what is named here."""

from training.methods.choice import BASE, load_same_base, load_tuned, merge_tuned, prepare, save_tuned
from training.methods.tuning import ParameterCount, count

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
