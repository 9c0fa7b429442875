"""Fits the tiny model to a few rows, for tests of what training does in its steps."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tiny import WORDS, Quiet, sentences

from training.recipe.recipe import Recipe
from training.tasks.base.load import load_base, load_tokenizer, quiet
from training.tasks.registry import target_of
from training.tasks.rows import Rows
from training.train.fit.fit import Fitted, fit
from training.train.methods import prepare

LABELS = sorted(WORDS)


def recipe_of(model: Path, method: str = "full", **train: Any) -> Recipe:
    """Return a recipe that reads 48 rows once, in six steps of eight.

    Dropout adds no noise where the model has none.
    """
    values = {"epochs": 1.0, "batch_size": 8, "learning_rate": 0.005} | train
    return Recipe.model_validate(
        {"name": "x", "task": "text-classification", "model": str(model), "data": {"source": "s"}, "max_tokens": 24}
        | {"method": method, "train": values}
    )


def rows_of(recipe: Recipe, count: int, seed: int = 0) -> Dataset:
    """Tokenized rows, a third of each label."""
    made = sentences(count, seed)
    rows = Rows([text for text, _ in made], None, np.array([LABELS.index(label) for _, label in made]))
    return Dataset.from_dict({**rows.encode(load_tokenizer(recipe), recipe.max_tokens), "labels": rows.labels.tolist()})


def without_dropout(model: torch.nn.Module) -> None:
    """So that the same rows in other parts have the same gradient."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):  # of BERT's attention
            module.dropout_prob = 0.0


def fit_tiny(
    recipe: Recipe,
    place: Path,
    count: int = 48,
    validation: int = 0,
    *,
    dropout: bool = True,
    **options: Any,
) -> tuple[Fitted, torch.nn.Module, Quiet]:
    """Result of fit(), the trained model, and the messages."""
    quiet()
    model = prepare(load_base(recipe, LABELS), recipe.method)
    if not dropout:
        without_dropout(model)
    report = Quiet()
    fitted = fit(
        model,
        load_tokenizer(recipe),
        recipe,
        rows_of(recipe, count),
        rows_of(recipe, validation, seed=9) if validation else None,
        place / "checkpoints",
        report,
        **{"loss": target_of(recipe).loss()} | options,
    )
    return fitted, model, report
