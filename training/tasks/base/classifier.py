"""Transformers' class of a model with its head: that of the recipe's task, or that of a saved model's config."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from training.tasks.registry import TASKS
from training.tasks.task import Task


def auto_model(task: Task) -> Any:
    """Return transformers' class that loads models of a task."""
    return getattr(transformers, task.auto_model)


def loads(config: PretrainedConfig, task: Task) -> bool:
    """Return True when the task's class loads a model of this config."""
    return type(config) in auto_model(task)._model_mapping


def load_classifier(directory: Path) -> PreTrainedModel:
    """Load a model that a stage saved, in float32.

    Its class is that of the first task that loads its config.
    """
    config = AutoConfig.from_pretrained(directory)
    task = next(task for task in TASKS.values() if loads(config, task))
    model: PreTrainedModel = auto_model(task).from_pretrained(
        directory, config=config, use_safetensors=True, dtype=torch.float32
    )
    return model
