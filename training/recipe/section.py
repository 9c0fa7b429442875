"""The base class of the recipe's sections, and types that several of them use."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

PACKAGE = "package:"  # before NAME/path in an installed package
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of the recipe, in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def named(value: Any) -> Any:
    """Return `{name: lora}` for `lora`."""
    return {"name": value} if isinstance(value, str) else value
