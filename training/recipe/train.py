"""The recipe's `train`: epochs, learning rate, batches, precision, early stopping, balance and augmentation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.recipe.deepspeed import DeepspeedSettings
from training.recipe.section import Fraction, Section

Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
Precision = Literal["fp32", "bf16", "fp16"]
WordEdit = Literal["swap", "drop", "duplicate"]
CharacterEdit = Literal["swap", "drop", "duplicate", "typo"]


class EarlyStopping(Section):
    """Settings for stopping before the last epoch."""

    metric: str = Field(default="accuracy", description="metric of the validation set; picks the best checkpoint")
    patience: int = Field(default=3, ge=1, description="evaluations without improvement after which training stops")
    min_delta: float = Field(default=0.0, ge=0, description="least improvement over the best so far")


class Cap(Section):
    """A bound on the rows of each label."""

    cap: int = Field(ge=1, description="training rows of a label that are kept, drawn with the recipe's seed")


Balance = Literal["none", "weights", "oversample"] | Cap


class AugmentSettings(Section):
    """Perturbed copies of the training rows; for images a random view in every epoch.

    Words: Wei & Zou 2019, https://arxiv.org/abs/1901.11196; letters: Belinkov & Bisk 2018, https://arxiv.org/abs/1711.02173.
    """

    copies: int = Field(default=0, ge=0, le=20, description="perturbed copies of each training row; 0 for none")
    word_rate: Fraction = Field(default=0.1, description="edits of words, as a share of a text's words")
    word_edits: list[WordEdit] = Field(default=["swap", "drop", "duplicate"], description="edits to draw from")
    character_rate: Fraction = Field(default=0.02, description="edits of characters, as a share of a text's letters")
    character_edits: list[CharacterEdit] = Field(
        default=["swap", "drop", "duplicate", "typo"],
        description="edits to draw from; typo takes a neighbor on a QWERTY keyboard",
    )
    rotation: float = Field(default=0.0, ge=0, le=180, description="images: largest rotation in degrees, both ways")
    crop: float = Field(
        default=1.0, gt=0, le=1, description="images: least share of the area that a crop keeps; 1 for no crop"
    )
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none", description="images: directions of flips, each with a probability of one half"
    )

    @property
    def changes_images(self) -> bool:
        """Return True when training sees changed images."""
        return self.rotation > 0 or self.crop < 1 or self.flip != "none"


class TrainSettings(Section):
    """Settings of the training."""

    epochs: float = Field(default=3.0, gt=0, description="passes over the training rows")
    learning_rate: float | None = Field(default=None, gt=0, description="peak learning rate; by default the method's")
    schedule: Schedule = Field(default="linear", description="learning rate schedule, by transformers' name")
    schedule_cycles: int = Field(default=1, ge=1, description="cycles of cosine_with_restarts")
    schedule_power: float = Field(default=1.0, gt=0, description="power of polynomial")
    batch_size: int = Field(default=16, ge=1, description="rows per optimizer step")
    accumulation: int = Field(
        default=1,
        ge=1,
        description="gradient accumulation steps per optimizer step, to save memory",
    )
    warmup_ratio: Fraction = Field(default=0.1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decay")
    max_grad_norm: float = Field(default=1.0, ge=0, description="gradient clipping: largest norm; 0 for no clipping")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass, to save memory"
    )
    precision: Precision | Literal["auto"] = Field(
        default="auto", description="precision of the computation; auto is bf16 on a GPU that supports it, else fp32"
    )
    warm_start: bool = Field(default=False, description="start from the parent's weights, where there is a parent")
    checkpoint_steps: int = Field(default=50, ge=1, description="steps between checkpoints, where a run can resume")
    label_smoothing: Fraction = Field(default=0.0, description="share of the target that is spread over all labels")
    balance: Balance = Field(
        default="none",
        description="none, weights (rare labels count more), oversample (repeats rare rows), or {cap: N}",
    )
    augment: AugmentSettings = AugmentSettings()
    evaluate: Literal["checkpoint", "epoch"] | Annotated[int, Field(ge=1)] = Field(
        default="checkpoint",
        description="time of each evaluation: checkpoint, epoch, or a number of steps",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="metric, patience and min_delta of stopping early; by default never"
    )

    deepspeed: DeepspeedSettings | None = Field(
        default=None, description="DeepSpeed's configuration, or the JSON file that holds it; by default none"
    )

    @model_validator(mode="after")
    def _parts(self) -> "TrainSettings":
        if self.batch_size % self.accumulation:
            raise ValueError(f"a batch_size of {self.batch_size} does not divide into {self.accumulation} equal parts")
        return self
