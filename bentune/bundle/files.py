"""The base of every part of the bundle: unknown keys are errors, values do not change, numbers are finite."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A part of the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
