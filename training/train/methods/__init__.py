"""Fine-tuning methods, one file each; the stages use the names exported here."""

from training.train.methods.registry import UsedBase, load_same_base, load_tuned, merge_tuned, prepare, save_tuned
from training.train.methods.tuning import ParameterCount, count

__all__ = [
    "ParameterCount",
    "UsedBase",
    "count",
    "load_same_base",
    "load_tuned",
    "merge_tuned",
    "prepare",
    "save_tuned",
]
