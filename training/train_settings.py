"""The recipe's `train`: how long, how fast, and in which steps."""

from pydantic import Field

from training.rows_settings import AugmentSettings, Balance
from training.section import Fraction, Section


class TrainSettings(Section):
    """How long and how fast."""

    epochs: float = Field(default=3.0, gt=0, description="passes over the training rows")
    learning_rate: float | None = Field(default=None, gt=0, description="peak; by default 5e-5 for full, 1e-3 for lora")
    batch_size: int = Field(default=16, ge=1, description="rows a step")
    warmup_ratio: Fraction = Field(default=0.1, description="share of the steps that the learning rate rises")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decay")
    warm_start: bool = Field(default=False, description="start from the parent's weights, where there is a parent")
    checkpoint_steps: int = Field(default=50, ge=1, description="steps between checkpoints, from which a run goes on")
    label_smoothing: Fraction = Field(default=0.0, description="share of the target that is spread over all labels")
    balance: Balance = Field(
        default="none", description="none, weights (rare labels count more), oversample (are repeated), or {cap: N}"
    )
    augment: AugmentSettings = AugmentSettings()
