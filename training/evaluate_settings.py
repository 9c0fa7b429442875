"""The recipe's `evaluate`: which metrics are taken on the held-out rows."""

from pydantic import Field

from training.section import Section


class EvaluateSettings(Section):
    """Metrics of the base and the tuned model on the held-out rows."""

    resamples: int = Field(default=1000, ge=100, description="bootstrap resamples")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of the intervals")
    examples: int = Field(default=5, ge=0, description="rows to show whose answer changed")
