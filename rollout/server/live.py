"""What a service says at /info of what it serves, as typed values: a stranger may have written it."""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Name, Sha256
from bentune.bundle.plan import Variant
from bentune.bundle.targets.registry import target_in
from bentune.bundle.targets.target import Target

MAX_LABELS = 100_000


class _Said(BaseModel):
    """A newer service may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Identity(_Said):
    """Which bundle it is; every service of ours says it."""

    name: Name
    version: Name
    content: Sha256

    @property
    def tag(self) -> str:
        """Its tag in the BentoML model store."""
        return f"{self.name}:{self.version}"


class PlanInfo(_Said):
    """How it runs there."""

    variant: Variant
    provider: str = Field(max_length=100)


class LimitsInfo(_Said):
    """How much it takes at once."""

    max_inputs: int = Field(ge=1)


class Info(Identity):
    """All that a comparison needs of it."""

    inputs: Literal["text", "pair", "image"]
    target: Target
    plan: PlanInfo
    limits: LimitsInfo

    @model_validator(mode="before")
    @classmethod
    def _read_target(cls, said: Any) -> Any:
        if not isinstance(said, dict) or isinstance(said.get("target"), Target):
            return said
        labels = said.get("labels")
        if isinstance(labels, list) and len(labels) > MAX_LABELS:
            raise ValueError(f"it has more than {MAX_LABELS} labels")
        return said | {"target": target_in(said)}


Part = TypeVar("Part", bound=Identity)


def parse_info(kind: type[Part], address: str, said: bytes | dict[str, JsonValue]) -> Part:
    """/info of the service at `address`, as bytes or already read. Raises InputError, which says what is wrong."""
    try:
        return kind.model_validate_json(said) if isinstance(said, bytes) else kind.model_validate(said)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise InputError(
            f"{address}: /info is not that of a Bentune service of this version ({where or 'content'}: "
            f"{problem['msg']})"
        ) from None
