"""The recipe's `data.clean` and `data.near_duplicates`: what is done about rows that are dirty or nearly the same."""

from typing import Literal

from pydantic import Field

from training.recipe.section import Section

Rule = Literal["fix", "show", "off"]


class CleanSettings(Section):
    """A rule that would change texts only counts and shows by default: what is served gets texts as they come."""

    control_characters: Rule = Field(default="show", description="control characters: fix removes them, show counts")
    mojibake: Rule = Field(default="show", description="wrongly decoded texts: fix decodes them again, show counts")
    html: Rule = Field(default="show", description="HTML tags and entities: fix turns them into text, show counts")
    max_characters: int | None = Field(default=100_000, ge=1, description="longer rows are left out")
    min_characters: int | None = Field(default=None, ge=1, description="shorter rows are left out")

    @property
    def fixes(self) -> dict[str, bool]:
        """For each rule that can change texts whether it does."""
        return {name: getattr(self, name) == "fix" for name in ("control_characters", "mojibake", "html")}


class NearDuplicateSettings(Section):
    """Rows of one label whose texts are nearly the same: MinHash over shingles of three words."""

    action: Literal["remove", "show", "off"] = Field(
        default="remove", description="what to do with all but one of them"
    )
    threshold: float = Field(
        default=0.8, ge=0.5, le=1, description="share of word shingles that two texts have in common, from which on"
    )
