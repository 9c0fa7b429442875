"""The recipe's `calibrate`: whether the model's probabilities are made to mean what they say."""

from pydantic import Field

from training.recipe.section import Section


class CalibrateSettings(Section):
    """Temperature scaling of the merged model."""

    temperature: bool = Field(
        default=False, description="divide the logits by a number fitted on the validation rows, in the served weights"
    )
