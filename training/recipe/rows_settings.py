"""The recipe's `train.balance` and `train.augment`: which rows training sees, and how often."""

from typing import Literal

from pydantic import Field

from training.recipe.section import Fraction, Section

WordEdit = Literal["swap", "drop", "duplicate"]
CharacterEdit = Literal["swap", "drop", "duplicate", "typo"]


class Cap(Section):
    """A bound on the rows of each label."""

    cap: int = Field(ge=1, description="training rows of a label that are kept, drawn with the recipe's seed")


Balance = Literal["none", "weights", "oversample"] | Cap


class AugmentSettings(Section):
    """Perturbed copies of the training rows; of images another view in every epoch.

    Words: Wei & Zou 2019, https://arxiv.org/abs/1901.11196; letters: Belinkov & Bisk 2018, https://arxiv.org/abs/1711.02173.
    """

    copies: int = Field(default=0, ge=0, le=20, description="perturbed copies of each training row; 0 for none")
    word_rate: Fraction = Field(default=0.1, description="edits of words, as a share of a text's words")
    word_edits: list[WordEdit] = Field(default=["swap", "drop", "duplicate"], description="drawn from for each edit")
    character_rate: Fraction = Field(default=0.02, description="edits of characters, as a share of a text's letters")
    character_edits: list[CharacterEdit] = Field(
        default=["swap", "drop", "duplicate", "typo"],
        description="drawn from for each edit; typo takes a neighbour on a QWERTY keyboard",
    )
    rotation: float = Field(default=0.0, ge=0, le=180, description="images: most degrees that one is turned either way")
    crop: float = Field(
        default=1.0, gt=0, le=1, description="images: least share of the area that is cut out; 1 is all"
    )
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none", description="images: which ways one is mirrored, each half of the time"
    )

    @property
    def changes_images(self) -> bool:
        """Whether training sees images otherwise than they are."""
        return self.rotation > 0 or self.crop < 1 or self.flip != "none"
