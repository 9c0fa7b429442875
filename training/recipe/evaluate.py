"""The recipe's `evaluate` and `calibrate`: metrics on the test rows, and temperature scaling."""

from typing import Annotated

from pydantic import Field, StringConstraints

from training.recipe.section import Section

Column = Annotated[str, StringConstraints(min_length=1)]


class EvaluateSettings(Section):
    """Metrics of the base and the tuned model on the test rows."""

    resamples: int = Field(default=1000, ge=100, description="bootstrap resamples")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="confidence level of the intervals")
    ordinal: bool = Field(
        default=False, description="labels are ordered numbers, such as stars; adds the mean absolute error of the rank"
    )
    minimum: dict[str, float] = Field(
        default={},
        description="metric: bound that the worse limit of its interval must reach, or nothing is packaged; without "
        "any, the model must be better than always giving the commonest answer",
    )
    slices: list[Column] = Field(
        default=[], max_length=20, description="columns of the source; each of their values is measured separately"
    )
    calibration_bins: int = Field(default=10, ge=2, le=100, description="bins of confidence for calibration")
    examples: int = Field(default=5, ge=0, le=100, description="rows to show whose answer changed")
    mistakes: int = Field(default=10, ge=0, le=100, description="wrong answers to show, the most confident first")


class CalibrateSettings(Section):
    """Temperature scaling of the merged model."""

    temperature: bool = Field(
        default=False, description="divide the logits by a number that is fitted on the validation set"
    )
