"""The recipe's `distill` and `prune`: settings for a smaller model."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from training.recipe.section import PACKAGE, Section


class DistillSettings(Section):
    """Distillation: the model learns a teacher's answers too (Hinton et al. 2015, https://arxiv.org/abs/1503.02531)."""

    teacher: str = Field(
        min_length=1,
        description="fine-tuned classifier: NAME:VERSION of a bundle, hub name, local path, or package:NAME/path",
    )
    temperature: float = Field(default=2.0, gt=0, le=100, description="divisor of the logits of both models")
    weight: float = Field(default=0.5, ge=0, le=1, description="weight of the teacher's answers in the loss")
    max_tokens: int | None = Field(
        default=None,
        ge=4,
        description="length at which the teacher's texts are cut; by default its bundle's, or max_tokens",
    )
    student_layers: int | None = Field(
        default=None, ge=1, description="layers of the student, evenly spaced in the model; by default all"
    )


class PruneSettings(Section):
    """Amount and kind of pruning, and the second training after it."""

    kind: Literal["magnitude", "structured", "heads", "neurons"] = Field(
        default="structured",
        description="magnitude sets single weights to zero; heads and neurons are removed, structured removes both",
    )
    amount: float = Field(default=0.3, gt=0, lt=1, description="share of the weights, heads or neurons")
    importance_rows: int = Field(
        default=512, ge=1, description="training rows for measuring the importance of heads and neurons"
    )
    epochs: float = Field(default=1.0, gt=0, description="passes over the training rows after pruning")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="peak learning rate after pruning; by default train's for method full, else 5e-5",
    )


def names_bundle(teacher: str) -> bool:
    """Return True for a bundle's NAME:VERSION, not a hub name or a path."""
    return ":" in teacher and not teacher.startswith(PACKAGE) and not Path(teacher).exists()
