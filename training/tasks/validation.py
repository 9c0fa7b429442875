"""The metrics of the validation rows while training goes on, and which way each is better."""

from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef
from transformers import EvalPrediction

from training.recipe.train import ValidationMetric

METRICS: tuple[ValidationMetric, ...] = get_args(ValidationMetric)


def higher_is_better(metric: ValidationMetric) -> bool:
    """Of every metric but a loss."""
    return metric != "log_loss"


def validation_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Every metric, from logits, float [rows, labels], and labels, int64 [rows]; log_loss in nats.

    scikit-learn's, whose macro F1 is over the labels that are there or were predicted. Where rows have any number of
    labels, int64 [rows, labels], accuracy is that of all labels of a row, macro F1 is over all labels, log_loss a mean
    over the labels too, and the metrics that are for one label a row are not there.
    """
    logits, labels = np.asarray(prediction.predictions, dtype=np.float64), np.asarray(prediction.label_ids)
    if labels.ndim > 1:
        return _of_any_number(logits, labels)
    predicted = logits.argmax(-1)
    found = {
        "accuracy": (predicted == labels).mean(),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "micro_f1": f1_score(labels, predicted, average="micro", zero_division=0),
        "mcc": matthews_corrcoef(labels, predicted),
        "log_loss": -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels].mean(),
    }
    return {name: float(value) for name, value in found.items()}


def _of_any_number(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    predicted = (logits > 0).astype(np.int64)
    found = {
        "accuracy": (predicted == labels).all(axis=1).mean(),
        "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
        "micro_f1": f1_score(labels, predicted, average="micro", zero_division=0),
        "log_loss": np.logaddexp(0, np.where(labels > 0, -logits, logits)).mean(),
    }
    return {name: float(value) for name, value in found.items()}
