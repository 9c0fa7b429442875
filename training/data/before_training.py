"""Checks of the rows that are made before training, because the run would fail after it."""

from bentune.bundle.errors import InputError
from bentune.quality.minimum import best_possible
from bentune.quality.registry import quality_of
from training.pipeline.layout import DataFiles
from training.recipe.recipe import Recipe
from training.tasks.rows import labels_in
from training.tasks.saved import labels_of, target_in
from training.tasks.targets.label_order import ranks_of


def require_measurable(recipe: Recipe, data: DataFiles) -> None:
    """Raise InputError when the evaluation is bound to fail, however good the model.

    Either labels have no order that `evaluate.ordinal` asks for, or the test set is too small to show that even a model
    without an error is better than a constant answer.
    """
    if recipe.evaluate.ordinal:
        ranks_of(labels_of(data.directory))
    if recipe.evaluate.minimum:
        return
    target, gold = target_in(data.directory), labels_in(data.test)
    best = best_possible(quality_of(target), gold, target, recipe.evaluate.confidence)
    if not best.reached:
        raise InputError(
            f"data.split.test: on {len(gold)} test rows even a model without an error is not shown to be better than "
            f"the constant answer {best.constant!r}: give more rows, raise data.split.test, or set what is enough in "
            "evaluate.minimum"
        )
